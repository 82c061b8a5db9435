"""The house: imports go one way, dvc.yaml lists what stages import, the code stays small."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, assert_covers, within

# A file may import from its own room and from rooms before it.
ROOMS = {
    "stages.base": (),
    "stages.dataset": ("stages.base",),
    "stages.network": ("stages.base",),
    "stages.prediction": ("stages.base", "stages.network"),
    "stages.report": ("stages.base", "stages.dataset", "stages.network", "stages.prediction"),
}
FILES = sorted([*(ROOT / "stages").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])
# For who goes past one machine, or searches: nobody else needs to read it.
FURTHER = ["stages/network/cluster.py", "tools/cluster.py", "tools/search.py", "tools/space.py"]
APPS = sorted((ROOT / "apps").rglob("*.py"))
STAGES = {
    name: stage
    for path in ("dvc.yaml", "apps/dvc.yaml")
    for name, stage in yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))["stages"].items()
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """The project's own modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{name.name}" for name in node.names}
            modules = {name for name in names if file_of(name)}
            found |= modules or {node.module}
    return {name for name in found if name.startswith(("apps", "stages", "tools", "benchmarks"))}


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next(filter(Path.is_file, [path.with_suffix(".py"), path / "__init__.py"]), None)


def needed(script: Path) -> set[str]:
    """All files of the project that a script imports, directly or through others."""
    found, new = set(), {script}
    while new:
        found |= new
        modules = set().union(*(imports(path) for path in new))
        packages = {".".join(name.split(".")[:2]) for name in modules}
        new = {path for name in modules | packages if (path := file_of(name))} - found
    return {path.relative_to(ROOT).as_posix() for path in found}


@pytest.mark.parametrize("path", FILES + APPS, ids=module_of)
def test_imports_go_one_way(path):
    name = module_of(path)
    room = ".".join(name.split(".")[:2])
    if room in ROOMS:
        allowed = (room, *ROOMS[room])
    elif name.startswith("stages."):
        allowed = tuple(ROOMS)  # a script, which nobody imports
    else:
        allowed = ("stages", name.split(".")[0])
    assert not {other for other in imports(path) if not within(other, allowed, ".")}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_what_the_stage_imports(stage):
    """Every file that the script imports is listed, itself or by its folder; and no dep is idle."""
    script = STAGES[stage]["cmd"].split()[2].replace(".", "/") + ".py"
    files = needed(ROOT / script)
    deps = {dep for dep in STAGES[stage]["deps"] if dep.startswith(("apps/", "stages/"))}
    assert_covers(deps, {path for path in files if not path.endswith("__init__.py")})
    if stage == "train":  # nothing that is used only afterwards
        assert not re.search("prediction|report|test", " ".join(STAGES[stage]["deps"]))


def code_lines(path: Path) -> int:
    """Lines that are neither blank, comment nor docstring."""
    text = path.read_text(encoding="utf-8")
    documentation = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                documentation |= set(range(first.lineno, first.end_lineno + 1))
    empty = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*empty, tokenize.ENDMARKER):
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - documentation)


def test_the_project_stays_small_enough_to_read_in_an_hour():
    lines = {path.relative_to(ROOT).as_posix(): code_lines(path) for path in FILES}
    assert sum(lines[path] for path in lines.keys() - {*FURTHER}) <= 2100
    assert sum(lines[path] for path in FURTHER) <= 500
    tests = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
    further = [path for path in tests if path.parent.name == "scaling"]  # the tests of FURTHER
    assert sum(len(tests.pop(path).splitlines()) for path in further) <= 900
    assert sum(len(text.splitlines()) for text in tests.values()) <= 6100
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 150
