"""`python -m tools.undo` in a real project: back to the commit, and nothing is lost."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, run

IDENTITY = ("-c", "user.name=Tests", "-c", "user.email=tests@example.com")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small DVC project with a param, a metric in Git and a network in DVC's cache."""
    folder = tmp_path / "project"
    folder.mkdir()
    run("git", "init", "-q", "-b", "main", cwd=folder)
    run("git", "config", "user.name", "Tests", cwd=folder)
    run("git", "config", "user.email", "tests@example.com", cwd=folder)
    run("dvc", "init", "-q", cwd=folder)
    (folder / "metrics").mkdir()
    (folder / "plots").mkdir()
    (folder / "code.sh").write_text(
        "mkdir -p models\ncp params.yaml models/network\ncp params.yaml metrics/evaluate.yaml\n"
    )
    (folder / "params.yaml").write_text("epochs: 1\n")
    (folder / "dvc.yaml").write_text(
        "stages:\n  train:\n    cmd: sh code.sh\n    params: [epochs]\n    deps: [code.sh]\n"
        "    outs: [models]\n    metrics:\n    - metrics/evaluate.yaml:\n        cache: false\n"
    )
    run("dvc", "repro", cwd=folder)
    (folder / "plots/picture.png").write_text("a picture")
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-qm", "run", cwd=folder)
    return folder


def undo(folder: Path, check: bool = True):
    return run("python", "-m", "tools.undo", cwd=folder, check=check, PYTHONPATH=str(ROOT))


def network(folder: Path) -> str:
    return (folder / "models/network").read_text()


def is_clean(folder: Path) -> bool:
    status = run("git", "status", "--porcelain", cwd=folder).stdout
    return status == "" and "up to date" in run("dvc", "status", cwd=folder).stdout


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("way", ["exp run", "repro", "edit only"])
def test_it_goes_back_and_keeps_what_was_there(project, way, staged):
    if way == "exp run":
        run("dvc", "exp", "run", "-S", "epochs=2", cwd=project)
    else:
        (project / "params.yaml").write_text("epochs: 2\n")
    if way == "repro":
        run("dvc", "repro", cwd=project)
    if staged:
        run("git", "add", "-A", cwd=project)
    printed = undo(project).stdout
    assert is_clean(project)
    assert network(project) == "epochs: 1\n"
    name = re.search(r"dvc exp apply (\S+)`", printed)[1]
    run("dvc", "exp", "apply", name, cwd=project)
    assert (project / "params.yaml").read_text() == "epochs: 2\n"


def test_with_nothing_to_undo_it_restores_the_network(project):
    shutil.rmtree(project / "models")
    undo(project)
    assert is_clean(project)
    assert network(project) == "epochs: 1\n"


def test_code_is_not_touched(project):
    (project / "code.sh").write_text("mine\n")
    (project / "params.yaml").write_text("epochs: 2\n")
    undo(project)
    assert (project / "code.sh").read_text() == "mine\n"
    assert (project / "params.yaml").read_text() == "epochs: 1\n"


def test_a_machine_that_never_ran_it_is_told_what_to_do(project, tmp_path):
    run("git", "clone", "-q", str(project), str(tmp_path / "clone"), cwd=tmp_path)
    result = undo(tmp_path / "clone", check=False)
    assert result.returncode == 1
    assert "it ran on another machine. `make` computes them again" in result.stderr
    assert "Traceback" not in result.stderr
