"""`python -m tools.run` in a small pipeline: presets, what is kept, and when digits are used."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, commit, git_init, run_stage
from dvc.cli import main as dvc

from stages.base.params import load
from stages.base.stage import UserError
from tools import run

# Offline, for what is not carried by scikit-learn, the project's own stage reaches no source.
DOWNLOAD = """
if [ -e offline ] && ! grep -q "dataset: digits" params.yaml
then exec python -m stages.download
fi
mkdir -p data/raw && sed -n 's/ *dataset: *\\([a-z_]*\\).*/\\1/p' params.yaml >data/raw/name
"""
RESULT = """
mkdir -p metrics
printf '{"dataset": "%s"}' "$(cat data/raw/name)" >metrics/evaluate.json
echo '{"corrupt": 0.25}' >metrics/robustness.json
printf 'index,actual,predicted\\n0,a,b\\n' >metrics/misclassified.csv
printf 'actual,a,b\\na,180,1\\nb,0,179\\n' >metrics/confusion_matrix.csv
"""
METRICS = ("evaluate.json", "robustness.json", "misclassified.csv", "confusion_matrix.csv")
PIPELINE = {
    "stages": {
        "download": {
            "cmd": "sh download.sh",
            "params": ["download"],
            "deps": ["download.sh"],
            "outs": ["data/raw"],
        },
        "evaluate": {
            "cmd": "sh evaluate.sh",
            "params": ["seeds", "train"],
            "deps": ["data/raw", "evaluate.sh"],
            "metrics": [{f"metrics/{name}": {"cache": False}} for name in METRICS],
        },
    }
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose pipeline takes no time, committed after a run on `mnist`."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "presets", folder / "presets")
    (folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (folder / "download.sh").write_text(DOWNLOAD)
    (folder / "evaluate.sh").write_text(RESULT)
    (folder / ".gitignore").write_text("/data\noffline\n*.tmp\n")
    git_init(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert dvc(["init", "-q"]) == dvc(["repro", "-q"]) == 0
    commit(folder, "run")
    return folder


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it; DVC runs in this process, and no source can be reached."""
    monkeypatch.setattr(run, "repro", lambda: dvc(["repro", "-q"]) == 0)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the port "discard"
    monkeypatch.setenv("MNIST_MIRROR", "")
    monkeypatch.chdir(folder)
    return folder


def make(*arguments: str) -> str:
    return run_stage(run.main, Path.cwd(), *arguments)


def preset(name: str) -> tuple[int, list[int]]:
    """Epochs and filters that a preset means."""
    make(name)
    return load().train.epochs, load().train.network.filters


def test_a_preset_is_whole_and_starts_from_the_committed_params(project, monkeypatch):
    monkeypatch.setattr(run, "repro", lambda: True)
    committed = load().train.network.filters
    make("-S", "train.learning_rate=0.05", "-S", "seeds=[1,2]", "-S", "download.dataset=kmnist")
    assert load().train.learning_rate == 0.05
    best = preset("best")
    assert preset("fast") != best
    assert preset("short") == (3, committed)
    assert preset("best") == best
    assert best[1] > committed
    assert (load().train.learning_rate, load().seeds) == (0.1, [0])
    assert load().download.dataset == "kmnist", "the choice of data stays"
    make("fast", "-S", "train.epochs=7")
    assert load().train.epochs == 7


def test_what_a_preset_replaces_is_kept_and_no_result_is_kept_twice(project):
    text = Path("params.yaml").read_text()
    mine = text.replace("momentum: 0.9 ", "momentum: 0.8 # mine")
    Path("params.yaml").write_text(mine)
    kept = re.search(r"`dvc exp apply (\S+)`", make("fast"))[1]
    first = re.search(r"Kept as (\S+),", make())[1]
    make("best")
    assert f"Kept as {first}," in make("fast")
    assert dvc(["exp", "apply", "-q", kept]) == 0
    assert Path("params.yaml").read_text() == mine


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-S", "seeds=[]"], "params.yaml: seeds: "),
        (["-S", "train.epochs=range(1,3)"], "queue"),
        (["-S", "train.epochs=1,2"], "queue"),
        (["-S", "train.epochs=${nothing}"], "train.epochs"),
        (["-S", "train.epoch=1"], "train.epoch"),
        (["-S", "+train.more=1"], "params.yaml: train.more: unknown key"),
        (["-S", "epochs"], "epochs"),
        (["fats"], "expected one of best, digits, fast, .*, found 'fats'"),
    ],
)
def test_a_wrong_value_is_refused_and_is_not_kept(project, arguments, message):
    before = Path("params.yaml").read_bytes()
    with pytest.raises(UserError, match=message):
        make(*arguments)
    assert Path("params.yaml").read_bytes() == before


def test_digits_take_the_place_of_a_dataset_that_cannot_be_reached_until_it_can(project):
    Path("offline").touch()
    before = Path("params.yaml").read_bytes()
    said = make("-S", "download.dataset=fashion_mnist", "-S", "train.epochs=4")
    assert "running on digits instead" in said
    assert "make fast" not in said
    assert load().download.dataset == "digits"
    assert load().train.epochs > 10, "an epoch on digits is a few steps"
    Path("offline").unlink()
    noted, text = run.FALLBACK.read_bytes(), Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("momentum: 0.9 ", "momentum: 0.8 "))
    assert "Trying" not in make(), "somebody has changed it since"
    assert load().download.dataset == "digits"
    run.FALLBACK.write_bytes(noted)
    Path("params.yaml").write_text(text)
    assert "Trying the dataset again" in make()
    assert (load().download.dataset, load().train.epochs) == ("fashion_mnist", 4)
    assert "Trying" not in make()
    assert Path("params.yaml").read_bytes() != before


@pytest.mark.parametrize(
    "fault", ["exit 1", "exit 3", "kill -9 $$", "touch .dvc/tmp/unreachable.tmp; exit 1"]
)
def test_no_other_fault_makes_it_take_digits(project, fault):
    """Offline, with the dataset already there, a later stage fails in any way."""
    Path("offline").touch()
    Path("evaluate.sh").write_text(fault + "\n")
    before = Path("params.yaml").read_bytes()
    with pytest.raises(UserError, match="the run failed"):
        make()
    assert Path("params.yaml").read_bytes() == before


def test_a_source_that_somebody_named_must_deliver(project, monkeypatch):
    Path("offline").touch()
    monkeypatch.setenv("MNIST_MIRROR", "nowhere")
    with pytest.raises(UserError, match="the run failed"):
        make("-S", "download.dataset=kmnist")
    assert load().download.dataset == "kmnist"
