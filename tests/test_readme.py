"""README.md and docs/ are true: links lead somewhere, numbers are those of the committed run."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, run, run_stage

from tools import card

TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_make_targets_exist(path: Path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).exists(), target
    code = "\n".join(re.findall(r"`([^`]+)`", text) + re.findall(r"^\$ (.+)", text, re.MULTILINE))
    for target in re.findall(r"\bmake ([a-z-]+)", code):
        assert re.search(rf"^{target}.*:", MAKEFILE, re.MULTILINE), target


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the last commit, since the folder's own may be of a run that is tried out."""
    shown = run("git", "rev-parse", "HEAD", cwd=ROOT, check=False)
    if shown.returncode:
        pytest.skip("this folder has no Git history")
    folder = tmp_path_factory.mktemp("committed") / "clone"
    run("git", "clone", "-q", "--depth", "1", f"file://{ROOT}", "clone", cwd=folder.parent)
    return folder


@pytest.fixture
def committed(clone: Path, tmp_path: Path) -> Path:
    return shutil.copytree(clone, tmp_path / "clone", ignore=shutil.ignore_patterns(".git"))


def test_quoted_numbers_are_those_of_the_committed_metrics(committed):
    run_stage(card.main, committed, "--check")
