"""What `make` does before `dvc repro`: remove the files that a kill left half written by DVC.

DVC writes three kinds of files in place, and stops at the remains until somebody deletes them (DVC
3.67): its note of running commands, its list of earlier runs, and dvc.lock. Nothing is lost with
them, since the results are in DVC's cache, where the next run finds them.

    python -m stages.recover
"""

import json
from pathlib import Path

import yaml
from dvc.lock import Lock, LockError
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

from stages.errors import run_stage


def recover(project: Path) -> list[Path]:
    """Remove DVC's half-written files below `project`, unless DVC is at work there; say which."""
    temporary = project / ".dvc/tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    locks = [Lock(str(temporary / name)) for name in ("lock", "rwlock.lock")]
    try:
        for lock in locks:
            lock.lock()
        return _remove(project)
    except LockError:
        return []
    finally:
        for lock in locks:
            if lock.is_locked:
                lock.unlock()


def _remove(project: Path) -> list[Path]:
    removed = []
    for path, read in (
        (project / ".dvc/tmp/rwlock", json.loads),
        (project / "dvc.lock", lambda text: COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(text))),
    ):
        try:
            read(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except (ValueError, yaml.YAMLError, Invalid):
            path.unlink()
            removed.append(path)
    for folder in (project / ".dvc/cache/runs").glob("*/*"):
        if not any(folder.iterdir()):
            folder.rmdir()
            removed.append(folder)
    return removed


def main() -> None:
    for path in recover(Path()):
        print(f"{path}: removed, a killed run left it half written")


if __name__ == "__main__":
    run_stage(main)
