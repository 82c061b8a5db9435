"""Clear what a killed DVC left half-written, so that the next `dvc repro` works.

    python -m tools.recover

DVC (3.67) writes its note of running commands (.dvc/tmp/rwlock), its list of earlier runs
(.dvc/cache/runs) and dvc.lock in place. A kill at the wrong moment leaves one of them half-written,
and DVC stops at it until somebody deletes it; it also leaves temporary copies of outputs. `make`
calls this first. Nothing in Git is touched: not a dvc.lock that DVC cannot load either, whether a
kill or a slip in an editor broke it.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import yaml

from stages.base.stage import UserError, run_stage

RWLOCK = Path(".dvc/tmp/rwlock")
LOCK = Path("dvc.lock")
COPY = re.compile(r".*\.[\w-]{22}\.tmp")  # what DVC calls a copy of an output until it is whole
FOLDERS = ("data", "models", "metrics", "plots")  # where outputs are


def is_dvc(pid: int) -> bool:
    """Whether the process of this number is a running DVC, not one that got the number later."""
    try:
        return any("dvc" in word for word in psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def remains() -> Iterator[tuple[Path, str]]:
    """The files that a killed DVC left, each with the reason why it has to go."""
    if RWLOCK.is_file():
        try:
            notes = json.loads(RWLOCK.read_text(encoding="utf-8"))
            commands = [*notes.get("write", {}).values(), *sum(notes.get("read", {}).values(), [])]
            if commands and not any(is_dvc(command["pid"]) for command in commands):
                yield RWLOCK, "it names commands that have ended"
        except (ValueError, KeyError, TypeError, AttributeError):
            yield RWLOCK, "it is half-written"
    for folder in Path(".dvc/cache/runs").glob("*/*"):
        entries = list(folder.iterdir())
        if not entries:
            yield folder, "an earlier run without an entry"
        for path in entries:
            if not path.stat().st_size:
                yield path, "it is empty"
    for folder in map(Path, FOLDERS):
        for path in folder.rglob("*.tmp"):
            if COPY.fullmatch(path.name):
                yield path, "an unfinished copy"


def recover() -> None:
    """Remove the remains, unless DVC is at work; say what was removed and why on stderr."""
    if not list(remains()):
        return  # without a lock: looking must not hold up another run
    from dvc.lock import Lock, LockError  # here: the import takes a second

    try:
        with ExitStack() as locks:
            for name in ("lock", "rwlock.lock"):
                locks.enter_context(Lock(str(RWLOCK.with_name(name))))
            for path, reason in list(remains()):  # again: what was being written may be whole now
                path.rmdir() if path.is_dir() else path.unlink()
                print(f"{path}: removed, left by a killed run: {reason}", file=sys.stderr)
    except LockError:
        print("DVC is at work in this project: nothing was removed", file=sys.stderr)


def check_lock() -> None:
    """See whether DVC can load dvc.lock.

    Raises:
        UserError: it cannot; the message says how to get the committed one back.
    """
    if not LOCK.is_file():
        return
    try:
        stages = yaml.load(
            LOCK.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
        if stages["schema"] == "2.0" and all("cmd" in entry for entry in stages["stages"].values()):
            return
    except (ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        pass
    known = subprocess.run(["git", "cat-file", "-e", f"HEAD:{LOCK}"], capture_output=True)
    mend = f"git checkout {LOCK}" if known.returncode == 0 else f"rm {LOCK}"
    raise UserError(
        f"{LOCK}: DVC cannot load it; a killed run, an edit or an unfinished merge broke it. It "
        f"is left as it is. To go back to the committed one: `{mend}`; what has been computed "
        "since then comes out of DVC's cache"
    )


def main() -> None:
    recover()
    check_lock()


if __name__ == "__main__":
    run_stage(main)
