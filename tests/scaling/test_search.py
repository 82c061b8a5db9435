"""`python -m tools.search` as users run it, in a real project: killed, in parallel, misused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, change_params, commit, run, run_stage, stages_run

from stages.base.stage import UserError
from tools import search, space

pytestmark = pytest.mark.filterwarnings("ignore:Choices for a categorical")  # lists, that is
needs_optuna = pytest.mark.skipif(
    search.optuna is None, reason="Optuna is not installed: see requirements-scaling.txt"
)
RATE = "train.learning_rate: {low: 0.0001, high: 0.3, log: true}\n"
OTHERS = "train.augment.rotation: {low: 0, high: 20}\n"
OTHERS += "train.network.filters: {choices: [[4, 8, 8], [4, 8, 12]]}\n"
LATER = {"metrics/evaluate.json", "metrics/robustness.json"}


@pytest.fixture(scope="module")
def project(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the pipeline has run, with a space to search; each study has a name."""
    folder = tmp_path_factory.mktemp("search") / "project"
    shutil.copytree(finished, folder, symlinks=True)
    (folder / "presets").mkdir()
    (folder / "presets/search.yaml").write_text(RATE + OTHERS)
    commit(folder, "space")
    return folder


def start(project: Path, *arguments: str) -> subprocess.Popen:
    """Start a search, as from a terminal in which Ctrl-C can be typed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        [sys.executable, "-m", "tools.search", *arguments],
        cwd=project,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_until_training(project: Path, trial: str) -> None:
    folder = project / ".dvc/tmp/search" / trial
    for _ in range(3000):
        output = folder / ".git/output"
        if output.exists() and "Running stage 'train@0'" in output.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"{trial} does not begin to train")


def states(project: Path, study: str) -> dict[str, str]:
    """By name: how each trial has ended."""
    storage = f"sqlite:///{project}/.dvc/tmp/search/trials.db"
    trials = search.optuna.load_study(study_name=study, storage=storage).trials
    return {f"{study}-{trial.number}": trial.state.name for trial in trials}


def experiments(project: Path, study: str) -> dict[str, dict]:
    """By name: params and metrics of the study's experiments, as DVC shows them."""
    shown = json.loads(run("dvc", "exp", "show", "--json", cwd=project).stdout)
    revisions = [rev for base in shown for exp in base["experiments"] or () for rev in exp["revs"]]
    return {rev["name"]: rev["data"] for rev in revisions if rev["name"].startswith(f"{study}-")}


def check_experiments(project: Path, study: str) -> dict[str, dict]:
    """All that finished are experiments, the others not; nothing is left; none has test results."""
    found, ended = experiments(project, study), states(project, study)
    assert found.keys() == {name for name, state in ended.items() if state == "COMPLETE"}
    assert {path.name for path in project.glob(".dvc/tmp/search/*")} == {"lock", "trials.db"}
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""
    for data in found.values():
        metrics = {path: of.get("data") for path, of in data["metrics"].items()}
        assert {"train", "val", "val_loss"} == metrics.pop("metrics/package.json").keys()
        assert metrics == dict.fromkeys(LATER)
        assert 0.0001 <= data["params"]["params.yaml"]["data"]["train"]["learning_rate"] <= 0.3
    return found


@needs_optuna
@pytest.mark.slow
def test_killed_it_goes_on_and_the_best_becomes_the_params(project):
    arguments = ("--study", "kill", "--trials", "3", "-S", "train.epochs=6")
    killed = start(project, *arguments)
    wait_until_training(project, "kill-1")
    killed.kill()
    killed.wait()
    assert (project / ".dvc/tmp/search/kill-1").exists()
    said = run("python", "-m", "tools.search", *arguments, cwd=project).stdout
    ended = states(project, "kill")
    assert (ended["kill-0"], ended["kill-1"]) == ("COMPLETE", "FAIL")
    assert sorted(ended.values()) == ["COMPLETE"] * 3 + ["FAIL"]
    found = check_experiments(project, "kill")
    params = {name: data["params"]["params.yaml"]["data"] for name, data in found.items()}
    assert {values["train"]["epochs"] for values in params.values()} == {6}
    first = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    first["train"]["epochs"] = 6
    assert params["kill-0"] == first, "the first trial is params.yaml as it is"

    best = run("python", "-m", "tools.search", "--study", "kill", "--best", cwd=project).stdout
    assert said.endswith(best)
    losses = {
        name: data["metrics"]["metrics/package.json"]["data"]["val_loss"]
        for name, data in found.items()
    }
    name, back = re.search(r"dvc exp apply (\S+)\n +dvc exp run (\S+)\n", best).groups()
    assert name == min(losses, key=losses.get)
    assert back == "-Strain.epochs=1"
    run("dvc", "exp", "apply", name, cwd=project)
    assert yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8")) == params[name]
    assert stages_run(run("dvc", "repro", cwd=project)) == {"evaluate", "robustness"}
    assert "up to date" in run("dvc", "status", cwd=project).stdout
    run("python", "-m", "tools.undo", cwd=project)


@needs_optuna
@pytest.mark.slow
def test_ctrl_c_ends_in_one_line_and_marks_the_trial(project):
    stopped = start(project, "--study", "stop", "--workers", "2", "-S", "train.epochs=40")
    wait_until_training(project, "stop-1")
    stopped.send_signal(signal.SIGINT)
    output, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 1
    assert re.fullmatch(r"(stop-\d: .+\n)*error: stopped; .* the same command goes on\n", output)
    assert "FAIL" in states(project, "stop").values()
    check_experiments(project, "stop")


@needs_optuna
@pytest.mark.slow
def test_two_commands_share_a_study(project):
    arguments = ("--study", "two", "--trials", "4", "--seeds", "2")
    both = [start(project, *arguments) for _ in range(2)]
    for each in both:
        output, _ = each.communicate(timeout=900)
        assert each.returncode == 0, output
        assert re.search(r"^two-\d: val_loss", output, re.MULTILINE), "it has run a trial"
    found = check_experiments(project, "two")
    assert len(found) == 4
    values = [data["params"]["params.yaml"]["data"] for data in found.values()]
    assert {tuple(each["seeds"]) for each in values} == {(0, 1)}
    assert len({each["train"]["learning_rate"] for each in values}) == len(found)


@needs_optuna
@pytest.mark.slow
def test_hopeless_trials_end_early_and_are_no_experiments(project):
    (space := project.parent / "rate.yaml").write_text(RATE)
    options = ("--space", str(space), "--trials", "9", "-S", "train.epochs=12")
    said = run("python", "-m", "tools.search", "--study", "prune", *options, cwd=project).stdout
    assert re.search(r"^prune-\d+: ended early, \d\d\.\d\d% errors after epoch", said, re.M)
    assert "PRUNED" in states(project, "prune").values()
    check_experiments(project, "prune")


@needs_optuna
@pytest.mark.slow
def test_a_training_that_diverges_is_a_bad_trial_and_no_fault(project):
    (space := project.parent / "wild.yaml").write_text("train.warmup: {low: 0.1, high: 0.3}")
    options = ("--space", str(space), "--trials", "1", "-S", "train.learning_rate=1.0e+9")
    command = ("python", "-m", "tools.search", "--study", "wild", *options)
    result = run(*command, cwd=project, check=False)
    assert result.stdout == "wild-0: ended early, the training diverged\n"
    assert result.stderr == "error: study wild: no trial has finished\n"


@needs_optuna
@pytest.mark.slow
def test_a_trial_that_fails_stops_the_search_with_the_reason(project):
    command = ("python", "-m", "tools.search", "--study", "fail", "-S", "download.dataset=kmnist")
    result = run(*command, cwd=project, check=False, MNIST_MIRROR="nowhere")
    assert result.returncode == 1
    assert re.fullmatch(r"error: trial fail-0: error: MNIST_MIRROR=nowhere: .+\n", result.stderr)
    assert states(project, "fail") == {"fail-0": "FAIL"}
    check_experiments(project, "fail")


@needs_optuna
@pytest.mark.slow
def test_another_setup_of_a_study_is_refused(finished, tmp_path):
    project = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    (project / "presets").mkdir()
    (project / "presets/search.yaml").write_text(RATE)

    def begin(*options: str) -> str:
        command = ("python", "-m", "tools.search", "--trials", "0", *options)
        return run(*command, cwd=project, check=False).stderr

    assert begin() == "error: study search: no trial has finished\n"
    assert begin() == begin("--best")
    assert "search, begun on commit" in begin("-S", "train.epochs=2")
    change_params(project, train__warmup=0.3)
    assert "params.yaml changed since" in begin()
    commit(project, "warmer")
    assert "params.yaml changed since" in begin()
    assert "no trial has finished" in begin("--study", "b")


@needs_optuna
@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("train.learning_rat: {low: 0.1, high: 1}", "train.learning_rat: expected a param of"),
        ("train.augment: {low: 0, high: 1}", "train.augment: expected a param of"),
        ("evaluate.seed: {low: 0, high: 1}", "evaluate.seed: expected a param of train or package"),
        ("train.epochs: {low: 1, high: 9}", "train.epochs: expected .* without -S"),
        ("train.warmup: {low: 0.5, high: 0.1}", "train.warmup: expected low and high"),
        ("train.warmup: {low: 0.3, high: 0.4}", "so that 0.2 of params.yaml is one of them"),
        ("train.warmup: {choices: [0.3, 0.4]}", "so that 0.2 of params.yaml is one of them"),
        ("train.warmup: {low: 0.1, hihg: 0.4}", "found {'low': 0.1, 'hihg': 0.4}"),
        ("train.warmup: {low: 0.0, high: 0.4, log: true}", "above 0 with `log: true`"),
        ("train.warmup: {low: a, high: b}", "train.warmup: expected low and high"),
        ("train.warmup: 0.3", "train.warmup: expected low and high"),
        ("train.warmup: {low: 0.1, high: 1.5}", "train.warmup: .* less than 1, found 1.5"),
        ("train.warmup: {choices: [0.2, 0.3, x]}", "train.warmup: .* valid number, found 'x'"),
        ("train.batch_size: {low: 2, high: 9999}", "train.batch_size: expected at most"),
        ("- train.warmup", "expected params, in YAML"),
        ("a: [", "expected params, in YAML: while parsing"),
    ],
)
def test_a_wrong_space_is_refused_in_one_line_before_any_work(workspace, space, message):
    (workspace / "space.yaml").write_text(space)
    with pytest.raises(UserError, match=message) as refused:
        run_stage(search.main, workspace, "--space", "space.yaml", "-S", "train.epochs=2")
    assert str(refused.value).startswith("space.yaml: ")
    assert "\n" not in str(refused.value)
    assert not (workspace / ".dvc").exists()


@needs_optuna
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-S", "train.epochs=many"], "train.epochs: .*, found 'many'"),
        (["-S", "train.epoch=3"], "-Strain.epoch=3: expected keys of params.yaml"),
        (["-S", "preprocess.validation_size=0"], "preprocess.validation_size: expected more than"),
        (["--study", "../a"], "--study: expected"),
        (["--workers", "0"], "--workers"),
        (["--space", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_options_are_refused(workspace, options, message):
    with pytest.raises((UserError, FileNotFoundError), match=message):
        run_stage(search.main, workspace, *options)


@needs_optuna
def test_the_projects_space_is_accepted():
    values = space.flat(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert space.load_space(Path("presets/search.yaml"), [], values)


def test_without_optuna_it_says_what_to_install(workspace, monkeypatch):
    monkeypatch.setattr(search, "optuna", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-scaling\.txt"):
        run_stage(search.main, workspace)
