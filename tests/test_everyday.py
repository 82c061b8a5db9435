"""A day with the project: change something, compare, go back. Real DVC commands on `digits`."""

import io
import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT, change_params, commit, dvc, run, stages_run

WORKFLOW = ROOT / ".github/workflows/pull-request.yml"
KEYS = "accuracy loss ece train val val_loss corrupt"


def is_clean(folder: Path) -> bool:
    changes = run("git", "status", "--porcelain", cwd=folder).stdout
    return "up to date" in dvc(folder, "status") and not changes


@pytest.fixture(scope="module")
def branched(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `finished` in which a branch, slower, has run with another learning rate."""
    folder = tmp_path_factory.mktemp("branched") / "project"
    shutil.copytree(finished, folder, symlinks=True)
    run("git", "checkout", "-q", "-b", "slower", cwd=folder)
    change_params(folder, train__learning_rate=0.05)
    assert "train@0" in stages_run(dvc(folder, "repro"))
    commit(folder, "slower")
    return folder


@pytest.mark.slow
def test_what_has_been_computed_is_not_computed_again(branched, tmp_path):
    folder = shutil.copytree(branched, tmp_path / "folder", symlinks=True)
    for branch in ("main", "slower", "main"):
        run("git", "checkout", "-q", branch, cwd=folder)
        assert not stages_run(dvc(folder, "repro"))
        assert is_clean(folder)
    # Another value and back, on the same branch.
    for rate in (0.05, 0.1):
        change_params(folder, train__learning_rate=rate)
        assert not stages_run(dvc(folder, "repro"))
    assert is_clean(folder)
    # All that DVC keeps, deleted.
    for name in ("data/raw", "data/processed", "models", "metrics/details"):
        shutil.rmtree(folder / name)
    assert not stages_run(dvc(folder, "repro"))
    assert is_clean(folder)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_the_summary_of_a_pull_request_tells_what_a_branch_changes(branched, tmp_path):
    """By the workflow's own script. All that it needs is in Git: the clone has no data."""
    run("git", "clone", "-q", str(branched), "clone", cwd=tmp_path)
    clone, summary = tmp_path / "clone", tmp_path / "summary.md"
    assert not (clone / "data/processed").exists()
    (job,) = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()
    (script,) = (step["run"] for step in job["steps"] if step.get("name") == "summary")
    variables = {"GITHUB_STEP_SUMMARY": str(summary), "BASE": "origin/main"}
    run("bash", "-e", "-c", script, cwd=clone, **variables)
    text = summary.read_text(encoding="utf-8")
    verdict = run("python", "-m", "tools.compare", "origin/main", cwd=clone).stdout.splitlines()
    assert verdict[-1] in text
    assert re.search(r"\| params.yaml \| train.learning_rate \| 0.1 +\| 0.05 ", text)
    assert re.search(r"\| metrics/evaluate.json +\| accuracy ", text)
    assert (clone / "dvc_plots/index.html").is_file()


@pytest.mark.slow
def test_seeds_come_and_go(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    change_params(folder, seeds=[0, 1])
    ran = stages_run(dvc(folder, "repro"))
    assert ran == {"train@1", "package@1", "evaluate", "robustness"}
    assert set(KEYS.split()) <= set(dvc(folder, "metrics", "show").split())
    change_params(folder, seeds=[0])
    dvc(folder, "repro")
    assert not list(folder.glob("metrics/*/seed-1*"))
    changed = run("git", "status", "--porcelain", cwd=folder).stdout.split("\n")
    assert changed == [" M dvc.lock", ""], "DVC keeps its entry of the stage that is gone"
    assert run("git", "diff", "--numstat", "dvc.lock", cwd=folder).stdout.split("\t")[1] == "0"
    change_params(folder, seeds=[0, 1])
    assert "train@1" not in stages_run(dvc(folder, "repro"))


@pytest.mark.slow
def test_an_experiment_can_be_compared_at_a_glance_and_undone(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    model = (folder / "models/packaged/seed-0/model.tflite").read_bytes()
    changes = ["-S", "train.epochs=3", "-S", "preprocess.seed=1"]
    dvc(folder, "exp", "run", *changes)
    assert (folder / "models/packaged/seed-0/model.tflite").read_bytes() != model

    assert not run("git", "diff", "--cached", "--stat", cwd=folder).stdout, "nothing is staged"
    for command in (["metrics", "show"], ["metrics", "diff", "main"]):
        assert set(KEYS.split()) <= set(dvc(folder, *command).split()), command
    table = run("python", "-m", "tools.experiments", cwd=folder, COLUMNS="80").stdout
    assert {"train.epochs=3", "preprocess.seed=1"} <= set(table.split())
    assert "train.epochs" in dvc(folder, "params", "diff", "main")

    undone = run("python", "-m", "tools.undo", cwd=folder)
    assert is_clean(folder)
    assert (folder / "models/packaged/seed-0/model.tflite").read_bytes() == model
    name = re.search(r"dvc exp apply (\S+?)[`.\s]", undone.stdout)[1]
    dvc(folder, "exp", "apply", name)
    assert "epochs: 3" in (folder / "params.yaml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_params_are_searched_with_the_queue(folder):
    """As docs/scaling.md says; `dvc queue status` is not asked, it can end a worker at work."""
    values = "-S train.learning_rate=choice(0.01,0.02) -S train.epochs=2"
    run("dvc", "exp", "run", "--queue", "-n", "rate", *values.split(), "package", cwd=folder)
    run("dvc", "queue", "start", cwd=folder)
    deadline = time.monotonic() + 600
    while (found := run("git", "for-each-ref", "refs/exps", cwd=folder).stdout).count("/rate-") < 2:
        assert time.monotonic() < deadline, found
        time.sleep(1)
    table = io.StringIO(run("dvc", "exp", "show", "--csv", cwd=folder).stdout)
    losses = pd.read_csv(table, index_col="Experiment")["val_loss"].filter(regex="^rate-")
    assert losses.nunique() == 2, losses
    dvc(folder, "exp", "apply", losses.idxmin())
    ran = stages_run(dvc(folder, "repro"))
    assert ran == {"evaluate", "robustness"}
