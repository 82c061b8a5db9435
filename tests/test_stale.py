"""Stale results are impossible: whatever a result depends on, `dvc status` notices its change.

What must be noticed by which stage is read off the code: the modules that a stage's script imports,
directly or through others. Nothing is run again here; DVC compares, and the answer is exact: the
stages concerned are reported, and no others.
"""

import ast
import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, change_params, copy_project, run
from dvc.repo import Repo

MODULES = sorted(path.stem for path in (ROOT / "stages").glob("*.py"))
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "stages").rglob("*")
    if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
)


def imports(path: Path) -> set[str]:
    """The modules of stages/ that a file imports anywhere in it, by name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.removeprefix("stages.") for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "stages":
                found |= {name.name for name in node.names}
            else:
                found.add(node.module.removeprefix("stages."))
    return {name for name in found if (path.parent / f"{name}.py").is_file()}


def needs(folder: Path, script: str) -> set[str]:
    """All modules that a stage's script imports, itself and those behind others included."""
    found, new = set(), {script, "__init__"}
    while new:
        found |= new
        new = set().union(*(imports(folder / f"{name}.py") for name in new)) - found
    return found


def scripts(folder: Path) -> dict[str, str]:
    """The stages of dvc.yaml, and the module that each runs."""
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {
        name: stage["cmd"].split("-m stages.")[1].split()[0]
        for name, stage in stages.items()
        if "-m stages." in stage["cmd"]
    }


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which everything is up to date; each test puts back what it changes.

    No stage has run: DVC was told that files of a few bytes are what the stages wrote.
    """
    folder = copy_project(tmp_path_factory.mktemp("stale") / "project")
    with inside(folder):
        for number, out in enumerate(Repo(folder).index.outs):
            path = Path(out.fs_path)
            path = path if path.suffix else path / "curve.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"result {number}")
    run("dvc", "commit", "--force", cwd=folder)
    assert status(folder) == {}
    return folder


def status(project: Path) -> dict[str, list]:
    """What `dvc status` reports, by stage; the instances of a matrix under their stage's name."""
    with inside(project):
        repo = Repo(project)
        try:
            found = repo.status()
        finally:
            repo.close()
    return {name.split("@")[0]: changes for name, changes in found.items()}


@contextlib.contextmanager
def changed(path: Path, content: bytes | None) -> Iterator[None]:
    """Within the block, `path` has this content (None: it is deleted)."""
    before = path.read_bytes()
    path.unlink()  # DVC may have linked it to its cache
    if content is not None:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def reported(project: Path, path: str) -> set[str]:
    """The stages that notice a change of this file in their dependencies."""
    return {
        stage
        for stage, changes in status(project).items()
        for change in changes
        if isinstance(change, dict) and path in change.get("changed deps", {})
    }


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_an_edited_module_concerns_exactly_the_stages_that_import_it(
    module: str, project: Path, record_property: Callable[[str, int], None]
):
    path = project / "stages" / f"{module}.py"
    expected = {
        stage
        for stage, script in scripts(project).items()
        if module in needs(project / "stages", script)
    }
    with changed(path, path.read_bytes() + b"# a comment\n"):
        assert set(status(project)) == expected
    record_property("edits noticed", 1)


@pytest.mark.parametrize("name", FILES)
def test_an_edited_file_beside_the_modules_concerns_the_stages_whose_modules_name_it(
    name: str, project: Path, record_property: Callable[[str, int], None]
):
    path, folder = project / name, project / "stages"
    naming = {item.stem for item in folder.glob("*.py") if path.name in item.read_text("utf-8")}
    expected = {
        stage for stage, script in scripts(project).items() if naming & needs(folder, script)
    }
    assert expected
    with changed(path, path.read_bytes() + b"\n"):
        assert set(status(project)) == expected
    record_property("edits noticed", 1)


def test_each_stage_lists_the_modules_it_imports_and_no_others(project: Path):
    """So that a new module is missed here, before anybody edits it."""
    stages = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage, script in scripts(project).items():
        listed = {Path(dep).stem for dep in stages[stage]["deps"] if dep.endswith(".py")}
        assert listed == needs(project / "stages", script), stage


def test_a_new_module_that_a_stage_imports_is_asked_for(project: Path):
    folder = project / "stages"
    stages = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    new = folder / "novelty.py"
    new.write_text("")
    try:
        for script in scripts(project).values():
            path = folder / f"{script}.py"
            with changed(path, b"from stages import novelty\n" + path.read_bytes()):
                assert "novelty" in needs(folder, script)
    finally:
        new.unlink()
    assert not any("novelty" in dep for stage in stages.values() for dep in stage["deps"])


def leaves(values: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and values of all that are no sections."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def other(value: object) -> object:
    """Another value of the same type."""
    if isinstance(value, list):
        return [*value[:-1], value[-1] + 1]
    if isinstance(value, str):
        return "mnist" if value != "mnist" else "kmnist"
    return value + 1 if type(value) is int else value / 2 + 0.01


VALUES = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key, _ in leaves(VALUES)])
def test_a_changed_param_concerns_exactly_the_stages_that_list_it(
    key: str, project: Path, record_property: Callable[[str, int], None]
):
    """test_pipeline.py compares what they list with what they really read, by tracing."""
    stages = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    expected = {
        name
        for name, stage in stages.items()
        if any(key == listed or key.startswith(f"{listed}.") for listed in stage.get("params", []))
        or f"${{{key}}}" in str(stage.get("matrix", ""))
    }
    assert expected, f"{key} concerns no stage"
    path = project / "params.yaml"
    value = dict(leaves(yaml.safe_load(path.read_text(encoding="utf-8"))))[key]
    with changed(path, path.read_bytes()):
        change_params(project, **{key.replace(".", "__"): other(value)})
        assert set(status(project)) == expected
    record_property("edits noticed", 1)


def outputs(project: Path) -> list[Path]:
    """The files that stages wrote, those in folders included."""
    lock = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))
    paths = [project / out["path"] for stage in lock["stages"].values() for out in stage["outs"]]
    return [
        file
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*")))
        if file.is_file()
    ]


@pytest.mark.slow
def test_an_output_that_is_edited_swapped_or_deleted_is_noticed(
    project: Path, record_property: Callable[[str, int], None]
):
    files = outputs(project)
    for index, path in enumerate(files):
        content = path.read_bytes()
        edited = content[:-1] + bytes([content[-1] ^ 1])  # of the same length
        for damage in (edited, files[index - 1].read_bytes(), None):
            with changed(path, damage):
                assert status(project), f"{path}: {damage and damage[:20]}"
            record_property("edits noticed", 1)
    assert status(project) == {}


def test_a_changed_command_concerns_its_stage(project: Path):
    path = project / "dvc.yaml"
    text = path.read_text(encoding="utf-8")
    for stage, script in scripts(project).items():
        edited = text.replace(f"-m stages.{script}", f"-m  stages.{script}")
        with changed(path, edited.encode()):
            assert stage in status(project)


def test_what_no_result_depends_on_concerns_no_stage(project: Path):
    (project / "tests").mkdir()
    for name in ("README.md", "tests/test_new.py", "stages/unused.py"):
        (project / name).write_text("new\n")
    with contextlib.ExitStack() as stack:
        for name in ("params.yaml", ".gitattributes"):
            path = project / name
            stack.enter_context(changed(path, path.read_bytes() + b"# a comment\n"))
        assert status(project) == {}
    shutil.rmtree(project / "tests")
    for name in ("README.md", "stages/unused.py"):
        (project / name).unlink()
