"""Notes what a stage really uses: modules, files read and written, params.

Python imports this file at its start when its folder is on PYTHONPATH. When a process that ran
`python -m stages.…` ends, it writes what it used to $TRACE/<stage>.json. test_pipeline.py compares
that with dvc.yaml.
"""

import atexit
import json
import os
import sys
from pathlib import Path

PROJECT = Path.cwd()
read, written, params = set(), set(), set()


def inside(path: object) -> str | None:
    """The path relative to the project, if it is a plain file's in it."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        return None
    path = Path(os.path.abspath(os.fsdecode(path)))
    if not path.is_relative_to(PROJECT) or path == PROJECT:
        return None
    return path.relative_to(PROJECT).as_posix()


def note(event: str, arguments: tuple) -> None:
    if event == "open":
        path, mode, flags = arguments
        name = inside(path)
        if name:
            writes = flags & (os.O_WRONLY | os.O_RDWR) if isinstance(flags, int) else 0
            (written if writes else read).add(name)
            if name == "params.yaml" and "stages.params" in sys.modules:  # not DVC's own process
                watch_params()
    elif event == "os.rename" and inside(arguments[1]):
        written.add(inside(arguments[1]))


def watch_params() -> None:
    """Note each value that is read from a section of params.yaml, as `Class.name`."""
    section = sys.modules["stages.params"].Section
    plain = section.__getattribute__

    def noting(self, name):
        if name in type(self).model_fields:
            params.add(f"{type(self).__name__}.{name}")
        return plain(self, name)

    if plain.__name__ != "noting":
        section.__getattribute__ = noting


def keys_read() -> list[str]:
    """The values read, as dotted keys of params.yaml; of a section, those inside it."""
    found = []

    def walk(model: type, prefix: str) -> None:
        for name, field in model.model_fields.items():
            nested = getattr(field.annotation, "model_fields", None)
            if nested:
                walk(field.annotation, f"{prefix}{name}.")
            elif f"{model.__name__}.{name}" in params:
                found.append(prefix + name)

    walk(sys.modules["stages.params"].Params, "")
    return found


def report() -> None:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if not spec or not spec.name.startswith("stages."):
        return
    modules = {inside(getattr(module, "__file__", None)) for module in sys.modules.values()}
    target = Path(os.environ["TRACE"], f"{spec.name.removeprefix('stages.')}.json")
    content = {
        "modules": sorted(filter(None, modules)),
        "read": sorted(read - written),
        "written": sorted(written),
        "params": keys_read() if "stages.params" in sys.modules else [],
    }
    target.write_text(json.dumps(content), encoding="utf-8")


if "TRACE" in os.environ:
    sys.addaudithook(note)
    atexit.register(report)
