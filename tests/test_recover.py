"""`python -m tools.recover`: what a killed DVC leaves is cleared, what is in Git stays."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run, small_dvc_project
from dvc.lock import Lock

STAGE = "{cmd: 'sleep ${seconds} && cp params.yaml out', deps: [params.yaml], outs: [out]}"
NOTES = [".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock"]
CUT = b"schema: '2.0'\nstages:\n  copy:\n    cmd: cp\n    outs:\n    - pa"
SUFFIX = ".AbCdEfGhIjKlMnOpQrSt-_.tmp"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small DVC project that has run and is committed, and with DVC's cache."""
    project = tmp_path_factory.mktemp("finished") / "project"
    (project / "data").mkdir(parents=True)
    files = {"params.yaml": "seconds: 0\n", "dvc.yaml": f"stages: {{copy: {STAGE}}}\n"}
    small_dvc_project(project, files | {".gitignore": "/out\n*.tmp\n"}, "dvc cache dir ../cache")
    return project.parent


@pytest.fixture
def project(folder: Path) -> Path:
    return folder / "project"


def recover(folder: Path) -> subprocess.CompletedProcess:
    return run("python", "-m", "tools.recover", cwd=folder, check=False, PYTHONPATH=str(ROOT))


def assert_works(project: Path) -> None:
    """There is nothing left to do, and DVC finds the earlier run in its cache."""
    result = recover(project)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    (project / "dvc.lock").unlink()
    assert "Running stage" not in run("dvc", "exp", "run", cwd=project).stdout
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


def write_note(path: Path, pid: int) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"write": {"/project/out": {"pid": pid, "cmd": "dvc repro"}}}))


@pytest.mark.parametrize(("note", "kept"), [(NOTES[0], 30), (NOTES[1], None)])
def test_a_note_of_a_killed_command_is_removed(project, note, kept):
    write_note(project / note, 2**22 + 1)  # no process has such a number
    (project / note).write_text((project / note).read_text()[:kept])
    assert f"{note}: removed" in recover(project).stderr
    assert_works(project)


@pytest.mark.slow
def test_nothing_is_removed_while_dvc_works(project):
    (copy := project / f"data/a{SUFFIX}").write_text("half")
    with Lock(str(project / ".dvc/tmp/lock")):
        assert "Unable to acquire lock" in recover(project).stderr
    write_note(note := project / NOTES[0], os.getpid())
    assert recover(project).stderr == ""
    assert note.exists()
    assert copy.exists()
    os.utime(note, times=(0, 0))
    recover(project)
    assert not note.exists(), "the process of this number began after the note was written"


@pytest.mark.parametrize("kept", [None, 40], ids=["none", "half"])
def test_a_half_written_entry_of_the_run_cache_is_removed_with_its_folder(project, kept):
    entry = next((project.parent / "cache/runs").glob("*/*/*"))
    if kept is not None:
        entry.with_name(SUFFIX).write_text(entry.read_text()[:kept])
    entry.unlink()
    assert f"{entry.parent.name}: removed" in recover(project).stderr
    assert recover(project).stderr == ""
    (project / "dvc.lock").unlink()
    assert "Running stage" in run("dvc", "repro", cwd=project).stdout  # does not stop at the folder


def test_unfinished_copies_of_outputs_are_removed_and_nothing_else(project):
    mine = {"mine.tmp", f"in-git{SUFFIX}"}
    for name in (f"a{SUFFIX}", *mine):
        (project / "data" / name).write_text("half")
    run("git", "add", "--force", f"data/in-git{SUFFIX}", cwd=project)
    assert recover(project).stderr.startswith(f"data/a{SUFFIX}: removed")
    assert {path.name for path in (project / "data").iterdir()} == mine


@pytest.mark.parametrize("content", [pytest.param(b"\xff", marks=pytest.mark.slow), CUT])
def test_a_broken_dvc_lock_stays_and_the_way_back_is_told(project, content):
    (project / "dvc.lock").write_bytes(content)
    result = recover(project)
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    run("dvc", "repro", cwd=project, check=False)
    assert (project / "dvc.lock").read_bytes() == content
    assert "`git checkout HEAD dvc.lock`" in result.stderr
    run("git", "checkout", "HEAD", "dvc.lock", cwd=project)
    assert_works(project)


@pytest.mark.skipif(os.name != "posix", reason="kills a POSIX process group")
def test_a_killed_experiment_leaves_git_on_no_branch_and_that_is_told(project):
    command = [sys.executable, "-m", "dvc", "exp", "run", "-S", "seconds=600"]
    killed = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, start_new_session=True)
    while killed.stdout.readline() != b"Running stage 'copy':\n":
        assert killed.poll() is None
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert "`git switch -`" in recover(project).stderr
    assert "Switched to branch 'main'" in run("git", "switch", "-", cwd=project).stderr
