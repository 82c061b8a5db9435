"""`python -m tools.undo` in a small project: back to the commit, and nothing is lost."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, run, small_dvc_project

FILES = {
    "code.sh": "mkdir -p models metrics\ncp params.yaml models/network\n"
    "cp params.yaml metrics/evaluate.yaml\n",
    "dvc.yaml": "stages: {train: {cmd: sh code.sh, params: [width], deps: [code.sh], "
    "outs: [models/network], metrics: [metrics/evaluate.yaml: {cache: false}]}}\n",
    "params.yaml": "width: 1\n",
    ".gitignore": "/models/\n",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project with a param, a network in DVC's cache and a metric in Git."""
    return small_dvc_project(tmp_path_factory.mktemp("finished"), FILES)


def undo(folder: Path, check: bool = True) -> subprocess.CompletedProcess:
    return run("python", "-m", "tools.undo", cwd=folder, check=check, PYTHONPATH=str(ROOT))


def apply(folder: Path, printed: str) -> None:
    """Bring back the experiment that the message names."""
    run("dvc", "exp", "apply", re.search(r"`dvc exp apply (\S+)`", printed)[1], cwd=folder)


def network(folder: Path) -> str:
    return (folder / "models/network").read_text()


def changes(folder: Path) -> str:
    return run("git", "status", "--porcelain", cwd=folder).stdout


RUN = pytest.param("exp run", "branch", marks=pytest.mark.slow)


@pytest.mark.parametrize(("way", "where"), [RUN, ("edited", "staged"), ("interrupted", "detached")])
def test_it_goes_back_and_what_was_there_can_be_brought_back(folder, way, where):
    if where == "detached":
        run("git", "checkout", "-q", "--detach", cwd=folder)
    (folder / "params.yaml").write_text("width: 2\n")
    ran = run("dvc", *way.split(), cwd=folder).stdout if way == "exp run" else ""
    if way == "interrupted":  # DVC removes outputs before it runs a stage
        shutil.rmtree(folder / "metrics")
        shutil.rmtree(folder / "models")
    if where == "staged":
        run("git", "add", "-A", cwd=folder)
    result = undo(folder)
    if name := re.search(r"Ran experiment\(s\): (\S+)", ran):
        assert f"`dvc exp apply {name[1]}`" in result.stdout, "what DVC has kept is kept again"
    assert changes(folder) == ""
    assert "up to date" in run("dvc", "status", cwd=folder).stdout
    assert network(folder) == "width: 1\n"

    apply(folder, result.stdout)
    assert (folder / "params.yaml").read_text() == "width: 2\n"
    ran = "Running stage" in run("dvc", "repro", cwd=folder).stdout
    assert ran == (way in ("edited", "interrupted"))
    assert network(folder) == "width: 2\n", "DVC has not taken the old network for the new one"


def test_code_and_files_of_the_user_stay_and_new_outputs_are_kept(folder):
    (folder / "metrics/notes.txt").write_text("mine")
    (folder / "dvc.yaml").write_text(FILES["dvc.yaml"].replace("evaluate", "second"))
    (folder / "code.sh").write_text(FILES["code.sh"].replace("evaluate", "second"))
    run("dvc", "repro", cwd=folder)
    result = undo(folder)
    assert "Left your other edits as they are: code.sh, dvc.yaml." in result.stdout
    assert changes(folder) == " M code.sh\n M dvc.yaml\n?? metrics/notes.txt\n"
    apply(folder, result.stdout)
    assert (folder / "metrics/second.yaml").exists()


def test_a_broken_dvc_lock_is_replaced_and_what_has_not_changed_is_restored(folder):
    (folder / "dvc.lock").write_text("[")
    assert "exp apply" in undo(folder).stdout
    assert changes(folder) == ""
    shutil.rmtree(folder / "models")
    assert "exp apply" not in undo(folder).stdout, "there is nothing to keep"
    assert network(folder) == "width: 1\n"


def test_nothing_is_touched_while_dvc_works(folder):
    (folder / "params.yaml").write_text("width: 2\n")
    note = {"write": {str(folder / "models"): {"pid": os.getpid(), "cmd": "dvc repro"}}}
    (folder / ".dvc/tmp/rwlock").write_text(json.dumps(note))
    assert "DVC is at work" in undo(folder, check=False).stderr
    assert changes(folder) == " M params.yaml\n"


def test_without_a_copy_of_the_network_it_says_what_to_do(folder, tmp_path):
    run("git", "clone", "-q", str(folder), str(tmp_path / "clone"), cwd=tmp_path)
    result = undo(tmp_path / "clone", check=False)
    assert result.returncode == 1
    assert "it ran on another machine. `make` runs it again" in result.stderr
