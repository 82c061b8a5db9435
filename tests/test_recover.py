"""`python -m tools.recover`: what a killed DVC leaves is cleared, what is in Git stays."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, run
from dvc.lock import Lock

NOTES = [".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock"]
COPY = "data/images.npy.AbCdEfGhIjKlMnOpQrSt-_.tmp"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small DVC project that has run and is committed; DVC's cache lies beside it."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "params.yaml").write_text("seconds: 0\n")
    (folder / "dvc.yaml").write_text(
        "stages:\n  copy:\n    cmd: sleep ${seconds} && cp params.yaml data/copy\n"
        "    deps: [params.yaml]\n    params: [seconds]\n    outs: [data/copy]\n"
    )
    (folder / ".gitignore").write_text("/data/copy\n*.tmp\n")
    run("git", "init", "-q", "-b", "main", cwd=folder)
    run("git", "config", "user.name", "Tests", cwd=folder)
    run("git", "config", "user.email", "tests@example.com", cwd=folder)
    run("dvc", "init", "-q", cwd=folder)
    run("dvc", "cache", "dir", "../cache", cwd=folder)
    run("dvc", "repro", cwd=folder)
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-qm", "run", cwd=folder)
    return folder


def recover(folder: Path) -> subprocess.CompletedProcess:
    return run("python", "-m", "tools.recover", cwd=folder, check=False, PYTHONPATH=str(ROOT))


def write_note(path: Path, pid: int) -> bytes:
    """Note a command of process `pid`, as DVC does; what is written."""
    command = {"pid": pid, "cmd": "dvc repro"}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"write": {str(path.parents[2] / "data/copy"): command}}))
    return path.read_bytes()


def assert_works(folder: Path) -> None:
    """What `make` does next, and an experiment."""
    assert (result := recover(folder)).returncode == 0
    assert result.stderr == "", "all was cleared at once"
    (folder / "data/copy").unlink(missing_ok=True)
    (folder / "dvc.lock").unlink()  # DVC looks for the stage in its run cache
    run("dvc", "repro", cwd=folder)
    assert run("git", "status", "--porcelain", cwd=folder).stdout == ""
    run("dvc", "exp", "run", "-S", "seconds=0.1", cwd=folder)


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("content", ["", '{"write": {"/a/b": {"pid"', "ended", "given away"])
def test_a_note_of_a_killed_command_is_removed(project, note, content):
    path = project / note
    ended = subprocess.Popen([sys.executable, "--version"], stdout=subprocess.DEVNULL)
    ended.wait()
    write_note(path, os.getpid() if content == "given away" else ended.pid)
    if content == "given away":  # the process of this number began after the note was written
        os.utime(path, times=(0, psutil.Process().create_time() - 60))
    elif content != "ended":
        path.write_text(content)
    assert f"{note}: removed" in recover(project).stderr
    assert_works(project)


def test_nothing_is_removed_while_dvc_works(project):
    (project / COPY).write_text("half")
    note = project / NOTES[0]
    content = write_note(note, os.getpid())
    assert recover(project).stderr == ""
    assert note.read_bytes() == content
    note.unlink()
    with Lock(str(project / ".dvc/tmp/lock")):
        assert "Unable to acquire lock" in recover(project).stderr
    assert (project / COPY).exists()


def test_an_empty_folder_of_the_run_cache_is_removed(project):
    entry = next((project.parent / "cache/runs").glob("*/*/*"))
    entry.unlink()
    assert f"{entry.parent.name}: removed" in recover(project).stderr
    assert_works(project)


def test_unfinished_copies_of_outputs_are_removed_and_nothing_else(project):
    others = [project / "data" / name for name in ("notes.tmp", "a.AbCdEfGhIjKlMnOpQrSt-_.tmp")]
    for path in (project / COPY, *others):
        path.write_text("half")
    run("git", "add", "--force", str(others[1]), cwd=project)
    assert f"{COPY}: removed" in recover(project).stderr
    assert not (project / COPY).exists()
    assert all(path.exists() for path in others)


LOCKS = [b"", b"\xff", b"stages:\n  copy:\n    cm", b"schema: '3.0'\n", b"<<<<<<< HEAD\n=======\n"]
OUTS = b"schema: '2.0'\nstages:\n  copy:\n    cmd: cp\n    outs:\n    - pa"


@pytest.mark.parametrize("content", [*LOCKS, OUTS])
def test_a_broken_dvc_lock_stays_and_the_way_back_is_told(project, content):
    lock = project / "dvc.lock"
    lock.write_bytes(content)
    result = recover(project)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "`git checkout HEAD dvc.lock`" in result.stderr
    run("dvc", "repro", cwd=project, check=False)
    assert lock.read_bytes() == content
    run("git", "checkout", "HEAD", "dvc.lock", cwd=project)
    assert_works(project)


@pytest.mark.skipif(os.name != "posix", reason="kills a POSIX process group")
def test_a_killed_experiment_leaves_git_on_no_branch_and_that_is_told(project):
    command = [sys.executable, "-m", "dvc", "exp", "run", "-S", "seconds=600"]
    killed = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, start_new_session=True)
    while killed.stdout.readline() != b"Running stage 'copy':\n":
        assert killed.poll() is None
    time.sleep(0.5)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert "`git switch -`" in recover(project).stderr
    run("git", "switch", "-", cwd=project)
    assert run("git", "branch", "--show-current", cwd=project).stdout == "main\n"
    assert "seconds: 600" in (project / "params.yaml").read_text()
    (project / "params.yaml").write_text("seconds: 0\n")
    assert_works(project)


def test_the_environment_has_no_hook_of_ours():
    hooks = Path(sysconfig.get_path("purelib")).glob("*.pth")
    assert not [path for path in hooks if "recover" in path.read_text(encoding="utf-8")]
