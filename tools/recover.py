"""Clear what a killed DVC left half-written, so that the next `dvc repro` works.

    python -m tools.recover

DVC (3.67) notes the commands that run (.dvc/tmp/rwlock) and dvc.lock by writing over the file, and
a finished stage (runs, in its cache) by making a folder and then a file in it. A kill in between
leaves half a file or an empty folder, and every later `dvc repro` stops there; it also leaves
temporary copies of outputs. `make` calls this first. What is in Git is left alone: a dvc.lock that
DVC cannot load stays as it is, whether a kill or a slip in an editor broke it.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import psutil

from stages.base.stage import UserError, run_stage

# Notes of running commands: on the project's files, and on the branches of experiments.
NOTES = (Path(".dvc/tmp/rwlock"), Path(".dvc/tmp/exps/rwlock"))
COPY = re.compile(r".*\.[\w-]{22}\.tmp")  # what DVC calls a copy of an output until it is whole
FOLDERS = ("data", "models", "metrics", "plots")  # where outputs are
EXPERIMENT = Path(".git/refs/exps/exec/EXEC_BASELINE")  # exists while `dvc exp run` runs
MEND = """: a killed run, an edit or a merge broke dvc.lock; it is left as it is. `git checkout HEAD
dvc.lock` gets the committed one back (if none is committed, delete it); what has run since then is
run again, mostly from DVC's run cache"""


def commands(note: Path) -> list[int] | None:
    """The numbers of the processes that a note of DVC names; None if the note is half-written."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        found = [*content.get("write", {}).values(), *chain(*content.get("read", {}).values())]
        return [command["pid"] for command in found]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def wrote(pid: int, note: Path) -> bool:
    """Whether a process lives that may have written the note: one that is not younger than it."""
    try:
        return psutil.Process(pid).create_time() <= note.stat().st_mtime
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False


def is_running() -> bool:
    """Whether a DVC command runs in this project."""
    return any(wrote(pid, note) for note in NOTES for pid in commands(note) or [])


def remains() -> Iterator[tuple[Path, str]]:
    """What a killed DVC left, each with the reason why it has to go."""
    from dvc.config import Config

    for note in NOTES:
        named = commands(note)
        if named != []:
            yield note, "half-written" if named is None else "it names commands that have ended"
    for path in chain(*(Path(folder).rglob("*.tmp") for folder in FOLDERS)):
        in_git = ["git", "ls-files", "--error-unmatch", "--", path]
        if COPY.fullmatch(path.name) and subprocess.run(in_git, capture_output=True).returncode:
            yield path, "an unfinished copy"
    for folder in Path(Config(".dvc")["cache"].get("dir", ".dvc/cache")).glob("runs/*/*"):
        entries = list(folder.iterdir()) if folder.is_dir() else [folder]
        unfinished = [entry for entry in entries if COPY.fullmatch(entry.name)]
        yield from ((entry, "a finished stage's note, half-written") for entry in unfinished)
        if entries == unfinished:
            yield folder, "a finished stage's folder, empty"


def recover() -> None:
    """Remove the remains, unless DVC is at work; say what was removed and why on stderr.

    A killed `dvc exp run` leaves Git on no branch: that is told, not changed.

    Raises:
        DvcException: DVC's configuration is broken, or DVC has just begun to work here.
    """
    if is_running():
        return
    branch = ["git", "symbolic-ref", "--quiet", "HEAD"]
    if EXPERIMENT.exists() and subprocess.run(branch, capture_output=True).returncode:
        print("Git is on no branch: `git switch -` goes back if a kill did it", file=sys.stderr)
    if not any(remains()):
        return  # without DVC's locks: to look must not hold up another command
    from dvc.lock import Lock

    with ExitStack() as locks:
        for name in ("lock", "rwlock.lock"):
            locks.enter_context(Lock(str(NOTES[0].with_name(name))))
        for path, reason in [] if is_running() else list(remains()):
            path.rmdir() if path.is_dir() else path.unlink()
            print(f"{path}: removed, left by a killed run: {reason}", file=sys.stderr)


def main() -> None:
    """Recover, then see whether DVC can load dvc.lock.

    Raises:
        UserError: it cannot; the message says how to get the committed one back.
    """
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils import strictyaml

    advice = ""
    try:
        recover()
        advice = MEND
        if Path("dvc.lock").is_file():
            strictyaml.load("dvc.lock", COMPILED_LOCKFILE_SCHEMA)
    except DvcException as error:
        raise UserError(" ".join(f"{error}{advice}".split())) from None


if __name__ == "__main__":
    run_stage(main)
