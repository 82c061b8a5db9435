"""The versions of the packages that decide results.

requirements.txt pins some 250 packages; a new version of most changes no result. Those that do are
noted in a file that training depends on: with another version of TensorFlow the networks are
trained again, with another version of pytest they are not.
"""

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from stages.base.stage import UserError

REQUIREMENTS = Path("requirements.txt")
ENVIRONMENT = Path("data/environment.txt")
DECISIVE = ("ai-edge-litert", "h5py", "keras", "ml-dtypes", "numpy", "scipy", "tensorflow")


def pinned(requirements: str) -> dict[str, str]:
    """Versions of the decisive packages that requirements.txt pins for this Python and system.

    Raises:
        UserError: it does not pin one of them.
    """
    lines = (line.partition(" #")[0].strip() for line in requirements.splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    versions = {
        package.name: next(iter(package.specifier)).version
        for package in found
        if package.name in DECISIVE and (package.marker is None or package.marker.evaluate())
    }
    if missing := set(DECISIVE) - set(versions):
        raise UserError(f"{REQUIREMENTS} pins no {', '.join(sorted(missing))}: run `make lock`")
    return versions


def check(expected: dict[str, str], source: Path) -> None:
    """Compare versions with those that are installed.

    Raises:
        UserError: a package is missing or has another version than `source` says.
    """
    faults = []
    for name, version in expected.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "none"
        if found != version:
            faults.append(f"{name} {version}, found {found}")
    if faults:
        raise UserError(
            f"installed packages differ from {source}: expected {'; '.join(faults)}. Run "
            "`pip install -r requirements.txt`; to change a version, change it there"
        )


def check_noted() -> None:
    """Compare what is installed with what the stage `environment` noted.

    Raises:
        UserError: the file is missing, or another version is installed.
    """
    try:
        lines = ENVIRONMENT.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{ENVIRONMENT} not found: run `dvc repro environment` first") from None
    check(dict(line.split("==") for line in lines), ENVIRONMENT)
