"""The stage `environment`: pins and installed packages compared, and noted for `train`."""

from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT, record_environment

from stages import environment
from stages import train
from stages.base.stage import UserError

RECORD = Path("data/environment.txt")


def pins(**changes: str) -> str:
    """A requirements.txt of the decisive packages as installed, but for `changes`."""
    versions = {name: metadata.version(name) for name in environment.DECISIVE} | changes
    return "# a comment\n" + "".join(
        f"{name}=={version}  # via something\n" for name, version in versions.items() if version
    )


def test_it_notes_the_versions_that_decide_the_results(workspace: Path):
    record_environment(workspace)
    noted = dict(line.split("==") for line in RECORD.read_text(encoding="utf-8").splitlines())
    for name in ("tensorflow", "keras", "numpy"):
        assert noted[name] == metadata.version(name)


def test_a_pin_of_another_package_changes_nothing(workspace: Path):
    record_environment(workspace)
    before = RECORD.read_bytes()
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    Path("requirements.txt").write_text(requirements + "sampleproject==1.0\n", encoding="utf-8")
    environment.main()
    assert RECORD.read_bytes() == before


def test_markers_choose_the_pin_for_this_python(workspace: Path):
    text = pins(numpy="")
    text += "numpy==0.1 ; python_full_version < '3.0'\n"
    text += f"numpy=={metadata.version('numpy')} ; python_full_version >= '3.0'\n"
    Path("requirements.txt").write_text(text, encoding="utf-8")
    environment.main()
    assert "numpy==0.1" not in RECORD.read_text(encoding="utf-8")


def test_another_version_than_the_pinned_is_refused(workspace: Path):
    Path("requirements.txt").write_text(pins(tensorflow="1.15.0"), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        environment.main()
    found = metadata.version("tensorflow")
    assert f"expected tensorflow 1.15.0, found {found}" in str(caught.value)
    assert "pip install -r requirements.txt" in str(caught.value)
    assert not RECORD.exists()


def test_a_missing_pin_is_refused(workspace: Path):
    Path("requirements.txt").write_text(pins(keras=""), encoding="utf-8")
    with pytest.raises(UserError, match="pins no keras"):
        environment.main()


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "DECISIVE", ("no-such-package",))
    versions = environment.pinned("no-such-package==1.0\n")
    with pytest.raises(UserError, match=r"expected no-such-package 1\.0, found none"):
        environment.check(versions, Path("requirements.txt"))


def test_train_refuses_other_versions_than_were_noted(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.argv", ["train", "--seed", "0"])
    with pytest.raises(UserError, match="dvc repro environment"):
        train.main()
    record_environment(workspace)
    RECORD.write_text("tensorflow==2.0.0\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"expected tensorflow 2\.0\.0"):
        train.main()
