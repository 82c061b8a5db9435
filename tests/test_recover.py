"""`python -m tools.recover`: what a killed DVC left goes, what belongs to a running DVC stays."""

import json
import os
import time
from pathlib import Path

import pytest
from conftest import run_stage

from tools import recover

NOTES = [".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock"]
ENDED = 2**22 + 1  # no process has such a number


def write(folder: Path, note: str, pid: int, age: float, kind: str = "write") -> Path:
    """A note of DVC that names a process, written so many seconds ago."""
    path = folder / note
    path.parent.mkdir(parents=True)
    command = {"pid": pid, "cmd": "dvc repro"}
    path.write_text(json.dumps({kind: {"/out": [command] if kind == "read" else command}}))
    os.utime(path, times=2 * (time.time() - age,))
    return path


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize(("pid", "age"), [(ENDED, 5), (None, 10**8)], ids=["ended", "reused"])
def test_a_note_of_a_killed_command_is_removed(tmp_path, note, pid, age):
    """Also if a process that began after the note was written has the command's number."""
    path = write(tmp_path, note, pid or os.getpid(), age)
    assert run_stage(recover.main, tmp_path).startswith(f"{note}: removed")
    assert not path.exists()
    assert run_stage(recover.main, tmp_path) == ""


@pytest.mark.parametrize("kept", [0, 30])
def test_a_note_that_is_cut_off_is_removed_unless_it_is_being_written(tmp_path, kept):
    path = write(tmp_path, NOTES[0], ENDED, age=0)
    path.write_text(path.read_text()[:kept])
    run_stage(recover.main, tmp_path)
    assert path.exists()
    os.utime(path, times=(0, 0))
    run_stage(recover.main, tmp_path)
    assert not path.exists()


@pytest.mark.parametrize("kind", ["read", "write"])
def test_the_note_of_a_running_command_stays(tmp_path, kind):
    path = write(tmp_path, NOTES[0], os.getpid(), age=-1, kind=kind)
    assert run_stage(recover.main, tmp_path) == ""
    assert path.exists()


def test_a_note_that_names_nobody_stays(tmp_path):
    write(tmp_path, NOTES[0], ENDED, age=5).write_text('{"write": {}, "read": {}}')
    assert run_stage(recover.main, tmp_path) == ""


@pytest.mark.parametrize("ended", [True, False])
def test_begun_entries_of_the_run_cache_go_unless_dvc_is_about_to_finish_them(tmp_path, ended):
    empty, begun, full = (tmp_path / f".dvc/cache/runs/ab/{name}" for name in ("abc", "abd", "abe"))
    for folder in (empty, begun, full):
        folder.mkdir(parents=True)
    (full / "entry").touch()
    for folder in (begun, full):
        (folder / ".9fL-2x_s.tmp").write_text("cmd: python -m st")
    write(tmp_path, NOTES[0], ENDED if ended else os.getpid(), age=-1)
    run_stage(recover.main, tmp_path)
    assert (full / "entry").exists()
    assert (full / ".9fL-2x_s.tmp").exists() == begun.exists() == empty.exists() == (not ended)
