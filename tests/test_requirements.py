"""What is installed: each direct requirement is used, all is pinned."""

import ast
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import ROOT, contents, prepared, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FASTER = {"ruamel-yaml-clib"}  # what another package imports if it is there
HELD_BACK = {"backports-strenum"}  # what another package asks for in too new a version
BUILDS = {"tensorflow", "tensorflow-cpu"}  # of one package; which one, depends on the machine
FOLDERS = ("stages", "tools", "apps", "benchmarks", "tests")


def requirements(file: str) -> dict[str, Requirement]:
    """By name: what a file requires."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    texts = (line.partition("#")[0].strip() for line in lines if not line.startswith("-"))
    found = map(Requirement, filter(None, texts))
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def imported() -> set[str]:
    """Packages that the project's code imports, by the names they are installed by."""
    names = set()
    for path in (path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    ours = {path.stem for path in ROOT.glob("tests/*.py")} | set(FOLDERS)
    packages = packages_distributions()
    # An import that is guarded, since the package is optional, may not be installed.
    foreign = (names - ours - sys.stdlib_module_names) & set(packages)
    return {canonicalize_name(packages[name][0]) for name in foreign}


def test_what_is_imported_is_required_and_what_is_required_is_used():
    direct, used = set(requirements("requirements.in")), imported()
    assert direct >= BUILDS
    assert used - direct <= {"atheris", "optuna", "dvc-render"}  # optional; of DVC
    assert direct - used - BUILDS == FASTER | HELD_BACK


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_everything_is_pinned_to_one_version(name):
    pinned, text = requirements(f"{name}.txt"), (ROOT / f"{name}.txt").read_text("utf-8")
    assert set(requirements(f"{name}.in")) <= set(pinned)
    for requirement in pinned.values():
        assert [item.operator for item in requirement.specifier] == ["=="], requirement
    assert not re.search(r"https?://|--index|--find-links", text)


def test_neither_file_changes_what_the_other_installs():
    one, other = (
        set(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text("utf-8"), re.MULTILINE))
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    shared = {package for package, _ in one} & {package for package, _ in other}
    assert {pin for pin in other if pin[0] in shared} <= one


def python_of(version: str) -> str | None:
    """The path of such a Python on this machine that can be asked for its version, if any."""
    pyenv = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
    for path in filter(None, [shutil.which(f"python{version}"), *map(str, pyenv)]):
        if subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return None


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_the_oldest_and_the_newest_python_make_and_load_the_same_files(version, tmp_path):
    """Each of the two loads what it trained; the bytes are equal, so it loads the other's, too."""
    other = python_of(version)
    if other is None or sys.version_info[:2] == tuple(map(int, version.split("."))):
        pytest.skip(f"there is no other Python {version}")
    run(other, "-m", "venv", str(tmp_path / "venv"), cwd=tmp_path)
    python = next((tmp_path / "venv").glob("[bS]*/python*"))  # bin or Scripts
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "-q", "--python", python, "-r", "requirements.txt"]
        subprocess.run(command, cwd=ROOT, check=True)
    else:
        run("python", "-m", "pip", "install", "-qr", "requirements.txt", cwd=ROOT, python=python)
    (here := tmp_path / "here").mkdir()
    prepared(here, seeds=[0])
    there = shutil.copytree(here, tmp_path / "there")
    for folder, executable in ((here, sys.executable), (there, python)):
        for stage in ("train", "package"):
            command = ("python", "-m", f"stages.{stage}", "--seed", "0")
            run(*command, cwd=folder, python=executable, PYTHONPATH=str(ROOT))
    assert contents(here / "models") == contents(there / "models")
