"""`python -m tools.undo` in a small project: back to the commit, and nothing is lost."""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import commit, git_init, run, run_stage
from dvc.cli import main as run_dvc

from stages.base.stage import UserError
from tools import undo

FILES = {
    "code.sh": "mkdir -p models metrics\ncp params.yaml models/model\n"
    "cp params.yaml metrics/evaluate.yaml\necho run >>models.log\n",
    "dvc.yaml": "stages: {train: {cmd: sh code.sh, params: [width], deps: [code.sh], "
    "outs: [models/model], metrics: [metrics/evaluate.yaml: {cache: false}]}}\n",
    "params.yaml": "width: 1\n",
    ".gitignore": "/models/\n/models.log\n",
}


def dvc(folder: Path, *arguments: str) -> None:
    """A DVC command, in this process: to start DVC takes two seconds."""
    with contextlib.chdir(folder):
        assert run_dvc(["-q", *arguments] if arguments[0] != "init" else [*arguments]) == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project with a param, a model in DVC's cache and a metric in Git."""
    folder = tmp_path_factory.mktemp("finished")
    git_init(folder)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    dvc(folder, "init", "-q")
    dvc(folder, "repro")
    commit(folder, "run")
    return folder


def apply(folder: Path, printed: str) -> None:
    """Bring back the experiment that the message names."""
    dvc(folder, "exp", "apply", re.search(r"`dvc exp apply (\S+)`", printed)[1])


def model(folder: Path) -> str:
    return (folder / "models/model").read_text()


def runs(folder: Path) -> int:
    """How many times the stage has run so far."""
    return len((folder / "models.log").read_text().splitlines())


def changes(folder: Path) -> str:
    return run("git", "status", "--porcelain", cwd=folder).stdout


RUN = pytest.param("exp run", "branch", marks=pytest.mark.slow)


@pytest.mark.parametrize(("way", "where"), [RUN, ("edited", "staged"), ("interrupted", "detached")])
def test_it_goes_back_and_what_was_there_can_be_brought_back(folder, way, where):
    if where == "detached":
        run("git", "checkout", "-q", "--detach", cwd=folder)
    (folder / "params.yaml").write_text("width: 2\n")
    if way == "exp run":
        dvc(folder, "exp", "run", "--name", "mine")
    if way == "interrupted":  # DVC removes outputs before it runs a stage
        shutil.rmtree(folder / "metrics")
        shutil.rmtree(folder / "models")
    if where == "staged":
        run("git", "add", "-A", cwd=folder)
    printed = run_stage(undo.main, folder)
    assert ("`dvc exp apply mine`" in printed) == (way == "exp run"), "kept once"
    assert changes(folder) == ""
    before = runs(folder)
    dvc(folder, "repro")
    assert runs(folder) == before, "everything is up to date"
    assert model(folder) == "width: 1\n"

    apply(folder, printed)
    assert (folder / "params.yaml").read_text() == "width: 2\n"
    dvc(folder, "repro")
    assert (runs(folder) > before) == (way != "exp run")
    assert model(folder) == "width: 2\n", "DVC has not taken the old model for the new one"


def test_code_and_files_of_the_user_stay_and_new_outputs_are_kept(folder):
    (folder / "metrics/notes.txt").write_text("mine")
    (folder / "dvc.yaml").write_text(FILES["dvc.yaml"].replace("evaluate", "second"))
    (folder / "code.sh").write_text(FILES["code.sh"].replace("evaluate", "second"))
    dvc(folder, "repro")
    printed = run_stage(undo.main, folder)
    assert "Left your other edits as they are: code.sh, dvc.yaml." in printed
    assert changes(folder) == " M code.sh\n M dvc.yaml\n?? metrics/notes.txt\n"
    apply(folder, printed)
    assert (folder / "metrics/second.yaml").exists()


def test_pictures_that_dvc_tracks_stay_as_they_are(folder):
    (folder / "own").mkdir()
    (folder / "own/1.png").write_text("one")
    dvc(folder, "add", "own")
    commit(folder, "pictures")
    (folder / "own/1.png").unlink()
    (folder / "own/2.png").write_text("two")
    run_stage(undo.main, folder)
    assert [path.name for path in (folder / "own").iterdir()] == ["2.png"]


def test_a_broken_dvc_lock_is_replaced_and_what_has_not_changed_is_restored(folder):
    (folder / "dvc.lock").write_text("[")
    shutil.rmtree(folder / "models")
    assert "exp apply" in run_stage(undo.main, folder)
    assert changes(folder) == ""
    assert model(folder) == "width: 1\n"
    assert "exp apply" not in run_stage(undo.main, folder), "there is nothing to keep"


def test_nothing_is_touched_while_dvc_works(folder):
    (folder / "params.yaml").write_text("width: 2\n")
    note = {"write": {str(folder / "models"): {"pid": os.getpid(), "cmd": "dvc repro"}}}
    (folder / ".dvc/tmp/rwlock").write_text(json.dumps(note))
    with pytest.raises(UserError, match="DVC is at work"):
        run_stage(undo.main, folder)
    assert changes(folder) == " M params.yaml\n"


def test_without_a_copy_of_the_model_it_says_what_to_do(folder, tmp_path):
    run("git", "clone", "-q", str(folder), str(tmp_path / "clone"), cwd=tmp_path)
    with pytest.raises(UserError, match="it ran on another machine. `make` runs it again"):
        run_stage(undo.main, tmp_path / "clone")


def test_what_git_says_is_shown_whole(folder, monkeypatch):
    """As its advice on a folder of another owner, several lines."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # where all folders may be safe
    with pytest.raises(UserError, match=r"(?s)dubious ownership.*\n.*safe.directory"):
        run_stage(undo.main, folder)
