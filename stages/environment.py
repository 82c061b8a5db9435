"""Stage 0, environment: are params.yaml and the installed packages in order?

    python -m stages.environment

It runs before all others: DVC removes a stage's outputs before it runs, so a slip in params.yaml
should stop here. requirements.txt pins some 250 packages; a new version of most changes no result.
Those that do are written to a file that train depends on: another version of TensorFlow trains
again, another version of pytest does not. What is installed must be what is pinned.
"""

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from stages.base import params
from stages.base.files import replacing
from stages.base.stage import UserError, run_stage

REQUIREMENTS = Path("requirements.txt")
ENVIRONMENT = Path("data/environment.txt")
DECISIVE = ("h5py", "keras", "ml-dtypes", "numpy", "scipy", "tensorflow")


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
    """Compare with what is installed.

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
            "`pip install -r requirements.txt`; a version is changed there, then `dvc repro`"
        )


def check_recorded() -> None:
    """Compare what is installed with what the stage recorded, before results are made with it."""
    try:
        lines = ENVIRONMENT.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{ENVIRONMENT} not found: run `dvc repro environment` first") from None
    check(dict(line.split("==") for line in lines), ENVIRONMENT)


def main() -> None:
    params.load()
    versions = pinned(REQUIREMENTS.read_text(encoding="utf-8"))
    check(versions, REQUIREMENTS)
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
    with replacing(ENVIRONMENT) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8", newline="\n")
    print(" ".join(line.strip() for line in lines))


if __name__ == "__main__":
    run_stage(main)
