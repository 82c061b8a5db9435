"""`python -m tools.recover`: what a killed DVC leaves is cleared, what is in Git stays."""

import json
import os
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT, run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small DVC project that has run and is committed."""
    folder = tmp_path / "project"
    folder.mkdir()
    run("git", "init", "-q", cwd=folder)
    run("dvc", "init", "-q", cwd=folder)
    (folder / "dvc.yaml").write_text(
        "stages:\n  copy:\n    cmd: cp source target\n    deps: [source]\n    outs: [target]\n"
    )
    (folder / "source").write_text("1")
    run("dvc", "repro", cwd=folder)
    run("git", "add", "-A", cwd=folder)
    identity = ("-c", "user.name=Tests", "-c", "user.email=tests@example.com")
    run("git", *identity, "commit", "-qm", "run", cwd=folder)
    return folder


def recover(folder: Path):
    return run("python", "-m", "tools.recover", cwd=folder, check=False, PYTHONPATH=str(ROOT))


def works(folder: Path) -> bool:
    return "up to date" in run("dvc", "repro", cwd=folder).stdout


def test_nothing_to_do_says_nothing(project):
    result = recover(project)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("content", ["", '{"write": {"/a/b": {"pid"', None], ids=str)
def test_a_note_of_a_killed_command_is_removed(project, content):
    if content is None:  # whole, of a process that has ended
        ended = run("python", "-c", "import os; print(os.getpid())", cwd=project).stdout
        command = {"pid": int(ended), "cmd": "dvc repro"}
        content = json.dumps({"write": {str(project / "target"): command}, "read": {}})
    (project / ".dvc/tmp/rwlock").write_text(content)
    result = recover(project)
    assert result.returncode == 0
    assert "rwlock: removed" in result.stderr
    assert works(project)


def test_a_note_of_a_living_dvc_stays(project):
    command = {"pid": os.getpid(), "cmd": "dvc repro"}
    content = json.dumps({"write": {str(project / "target"): command}, "read": {}})
    (project / ".dvc/tmp/rwlock").write_text(content)
    program = "import sys, time; sys.argv = ['dvc']; print('', flush=True); time.sleep(60)"
    import subprocess
    import sys

    with subprocess.Popen([sys.executable, "-c", program, "dvc"], stdout=subprocess.PIPE) as alive:
        alive.stdout.readline()
        command["pid"] = alive.pid
        content = json.dumps({"write": {str(project / "target"): command}, "read": {}})
        (project / ".dvc/tmp/rwlock").write_text(content)
        recover(project)
        assert (project / ".dvc/tmp/rwlock").read_text() == content
        alive.kill()


def test_an_empty_entry_of_an_earlier_run_is_removed(project):
    entry = next((project / ".dvc/cache/runs").glob("*/*/*"))
    entry.chmod(0o644)
    entry.write_text("")
    empty = project / ".dvc/cache/runs/aa/aaaa"
    empty.mkdir(parents=True)
    assert recover(project).returncode == 0
    assert not entry.exists()
    assert not empty.exists()
    (project / "source").write_text("2")
    run("dvc", "repro", cwd=project)


def test_unfinished_copies_of_outputs_are_removed_and_nothing_else(project):
    (project / "data").mkdir()
    copy = project / "data/images.npy.AbCdEfGhIjKlMnOpQrStUv.tmp"
    mine = project / "data/notes.tmp"
    copy.write_text("half")
    mine.write_text("mine")
    recover(project)
    assert not copy.exists()
    assert mine.exists()


@pytest.mark.parametrize(
    "content", [b"", b"stages:\n  copy:\n    cm", b"schema: '3.0'\n", b"- 1\n"]
)
def test_a_broken_dvc_lock_stays_and_the_way_back_is_told(project, content):
    lock = project / "dvc.lock"
    lock.write_bytes(content)
    result = recover(project)
    assert lock.read_bytes() == content
    assert result.returncode == 1
    assert "`git checkout dvc.lock`" in result.stderr
    run("git", "checkout", "dvc.lock", cwd=project)
    assert recover(project).returncode == 0
    assert works(project)


def test_the_environment_has_no_hook_of_ours():
    packages = Path(sysconfig.get_path("purelib"))
    assert not [path for path in packages.glob("*.pth") if "recover" in path.read_text()]
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tools").glob("*.py"))
    assert "purelib" not in text
