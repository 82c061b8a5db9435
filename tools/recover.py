"""Remove the notes that a killed DVC left: `make` calls this first.

DVC (3.67) notes which commands run, and writes over that file in place. After a kill it stops there
if the note is cut off, or if another process has the number of the command that was killed. It also
stops at an entry of its run cache that it had begun: `NoneType` if the folder is empty, `'outs'` if
the file, which has no name yet, is cut off.
"""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from stages.base.stage import UserError, run_stage

NOTES = (Path(".dvc/tmp/rwlock"), Path(".dvc/tmp/exps/rwlock"))


def running(note: Path) -> bool | None:
    """Whether a command that a note names still runs; None if none is named."""
    if not note.is_file():
        return None
    written = note.stat().st_mtime
    try:
        content = json.loads(note.read_text("utf-8"))
    except ValueError:
        return time.time() - written < 1  # cut off; if it is as new, DVC may be writing it
    named = [*content.get("write", {}).values(), *sum(content.get("read", {}).values(), [])]
    found = [psutil.Process(c["pid"]) for c in named if psutil.pid_exists(c["pid"])]
    return any(process.create_time() <= written for process in found) if named else None


def refuse_while_dvc_works() -> None:
    """Raise UserError if a DVC command runs: its stages would use params that DVC does not note."""
    if any(map(running, NOTES)):
        raise UserError("DVC is at work in this project: stop it or wait, then try again")


def main() -> None:
    for note in NOTES:
        if running(note) is False:
            note.unlink()
            print(f"{note}: removed, left by a killed command", file=sys.stderr)
    if not any(map(running, NOTES)):
        for folder in Path(".dvc/cache/runs").glob("*/*"):
            for begun in folder.glob("*.tmp"):
                begun.unlink()
            with suppress(OSError):  # it is not empty
                folder.rmdir()


if __name__ == "__main__":
    run_stage(main, __doc__)
