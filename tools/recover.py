"""Clear what a killed DVC left behind, so that the next `dvc repro` finishes.

DVC (3.67) writes three kinds of files in place, and stops at the remains until somebody deletes
them: its note of running commands (rwlock), its list of earlier runs, and dvc.lock. Nothing is
lost with them: the results are in DVC's cache, where the next run finds them. It also stops at a
killed command in that note if the command's process number has been given away since, as in a
restarted container, and never deletes the copies of outputs that it was making.

    python -m stages.recover             # clear the project in this folder
    python -m stages.recover --install   # from now on before each `dvc` of this environment

Installed, it is a module of the environment's own and a `.pth` file, which Python reads as it
starts. `make` does that once; Ctrl-C then ends DVC with a line, in its imports too.
"""

import json
import os
import re
import shutil
import signal
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MODULE = "dvc_recover"  # the name of this file in an environment
COPY = re.compile(r".*\.[\w-]{22}\.tmp")  # what DVC names a copy until it is whole
CLOCKS = 10.0  # seconds by which a process's begin and a file's date may disagree


def recover(project: Path) -> list[Path]:
    """Clear a killed DVC's remains in `project`, unless DVC is at work there; say which."""
    if not list(_remains(project)):
        return []  # without a lock: looking must not hold up another run

    from dvc.lock import Lock, LockError

    temporary = project / ".dvc/tmp"
    temporary.mkdir(exist_ok=True)
    locks = [Lock(str(temporary / name)) for name in ("lock", "rwlock.lock")]
    try:
        for lock in locks:
            lock.lock()
        remains = list(_remains(project))  # again: what was being written may be whole by now
        for path in remains:
            if path.is_dir():
                # DVC takes a file that it cannot read for a run that never was.
                (path / "half-written").write_text("")
            else:
                path.unlink()
        return remains
    except LockError:
        return []
    finally:
        for lock in locks:
            if lock.is_locked:
                lock.unlock()


def _remains(project: Path) -> Iterator[Path]:
    """What DVC would stop at or leave; not a dvc.lock with conflicts left by Git."""
    import yaml
    from dvc.config import Config
    from dvc.rwlock import SCHEMA
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    path = project / ".dvc/tmp/rwlock"
    with suppress(FileNotFoundError):
        try:
            running = SCHEMA(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, Invalid):
            yield path
        else:
            commands = [*running["write"].values(), *sum(running["read"].values(), [])]
            written = path.stat().st_mtime
            if commands and not any(_lives(command["pid"], written) for command in commands):
                found: set[Path] = set()
                for out in map(Path, running["write"]):
                    found |= {*out.parent.glob("*.tmp"), *out.rglob("*.tmp")}
                yield from sorted(file for file in found if COPY.fullmatch(file.name))
                yield path  # last: it tells where to look

    path = project / "dvc.lock"
    with suppress(FileNotFoundError):
        try:
            text = path.read_text(encoding="utf-8")
            if "\n<<<<<<< " not in f"\n{text}":
                loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
                COMPILED_LOCKFILE_SCHEMA(yaml.load(text, loader))
        except (ValueError, yaml.YAMLError, Invalid):
            yield path

    config = Config(str(project / ".dvc"), validate=False)
    cache = Path(config.get("cache", {}).get("dir") or project / ".dvc/cache")
    for folder in (cache / "runs").glob("*/*"):
        if not any(folder.iterdir()):
            yield folder


def _lives(pid: int, written: float) -> bool:
    """Whether the process that wrote its number at that time still runs, not one begun later."""
    import psutil

    try:
        return psutil.Process(pid).create_time() < written + CLOCKS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def report(project: Path) -> None:
    """`recover`, and a line on stderr about each file."""
    for path in recover(project):
        path = Path(os.path.relpath(path))
        print(f"{path}: cleared, a killed run had left it behind", file=sys.stderr)


def before_dvc() -> None:
    """What the environment's Python begins with: if it is to run DVC, clear the project around."""
    program = sys.orig_argv[1:3]
    if not program or program != ["-m", "dvc"] and Path(program[0]).stem != "dvc":
        return
    if sys.excepthook is _excepthook:  # done: Python reads a virtual environment's files twice
        return
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:  # and not ignored, as by a background job
        signal.signal(signal.SIGINT, _end)
    with suppress(Exception):  # whatever it is, DVC comes upon it next and says it better
        here = Path.cwd()
        for project in (here, *here.parents):
            if (project / ".dvc").is_dir():
                report(project)
                break
    sys.excepthook = _excepthook
    if heeded:
        signal.signal(signal.SIGINT, _interrupt)


def _end(number: int, frame) -> None:
    """Ctrl-C before DVC begins: nothing to wait for."""
    print("interrupted", file=sys.stderr, flush=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _interrupt(number: int, frame) -> None:
    """Ctrl-C while DVC works: as ever, but objects cut off in the making go without complaint."""
    sys.unraisablehook = lambda unraisable: None
    raise KeyboardInterrupt


def _excepthook(kind: type[BaseException], error: BaseException, trace) -> None:
    """Python's own, but for Ctrl-C while DVC imports its modules."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def install() -> None:
    """Have each `dvc` of this environment begin with `before_dvc`."""
    site = Path(sysconfig.get_path("purelib"))
    shutil.copy(__file__, site / f"{MODULE}.py")
    # One line of Python; it must not slow other programs down.
    hook = (
        "import sys; any('dvc' in word for word in sys.orig_argv[1:3])"
        f" and __import__('{MODULE}').before_dvc()\n"
    )
    (site / f"{MODULE}.pth").write_text(hook, encoding="utf-8")


def main() -> None:
    if sys.argv[1:] == ["--install"]:
        install()
    elif sys.argv[1:]:
        from stages.base.stage import UserError

        raise UserError(f"expected nothing or --install, found {' '.join(sys.argv[1:])}")
    else:
        report(Path())


if __name__ == "__main__":
    from stages.base.stage import run_stage  # here: an environment's copy stands alone

    run_stage(main)
