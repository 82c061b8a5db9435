"""Python imports this first; it writes to $TRACE which packages, files and params a stage used."""

import atexit
import json
import os
import sys
from pathlib import Path

PROJECT = os.path.join(os.getcwd(), "")
opened, written, keys = set(), set(), set()


def inside(path: object) -> str | None:
    """The path relative to the project, if it is a plain file's in it."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        return None
    path = os.path.abspath(os.fsdecode(path))
    return path.removeprefix(PROJECT).replace(os.sep, "/") if path.startswith(PROJECT) else None


def note(event: str, arguments: tuple) -> None:
    if event == "open" and (name := inside(arguments[0])):
        flags = arguments[2]
        writes = flags & (os.O_WRONLY | os.O_RDWR) if isinstance(flags, int) else 0
        (written if writes else opened).add(name)
    elif event == "os.rename" and inside(arguments[1]):
        written.add(inside(arguments[1]))


class Noting:
    """All params; notes which sections are used."""

    def __init__(self, params: object):
        self._params = params

    def __getattr__(self, key: str) -> object:
        keys.add(key)
        return getattr(self._params, key)


def watch_params() -> None:
    """When stages.base.params is there, note which sections of what it loads are used."""
    module = sys.modules.get("stages.base.params")
    plain = getattr(module, "load", None)
    if plain and not keys:
        keys.add("")
        module.load = lambda *arguments: Noting(plain(*arguments))


def report() -> None:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if not spec or not spec.name.startswith(("apps.", "stages.")):
        return
    modules = {inside(getattr(module, "__file__", None)) for module in sys.modules.values()}
    packages = {name.partition(".")[0] for name, module in sys.modules.items() if module}
    content = {
        "packages": sorted(packages),
        "modules": sorted(filter(None, modules)),
        "opened": sorted(opened - written),
        "written": sorted(written),
        "params": sorted(keys - {""}),
    }
    target = Path(os.environ["TRACE"], f"{spec.name.split('.')[-1]}.json")
    target.write_text(json.dumps(content), encoding="utf-8")


def watch(event: str, arguments: tuple) -> None:
    note(event, arguments)
    if event == "import":  # of a module after it; all stages import more than params
        watch_params()


if "TRACE" in os.environ:
    sys.addaudithook(watch)
    atexit.register(report)
