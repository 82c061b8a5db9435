"""README.md and docs/ are true: links lead somewhere, numbers are those of the committed run."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, change_params, run, run_stage

from stages.base.stage import UserError
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


def test_a_wrong_number_is_named_with_what_to_run(committed):
    readme = committed / "README.md"
    text = readme.read_text(encoding="utf-8")
    wrong = re.sub(r"(<!--=errors-->).*?(<!--/-->)", r"\g<1>7,654\2", text)
    readme.write_text(wrong, encoding="utf-8")
    with pytest.raises(UserError, match=r"README.md: errors: .*'7,654'\n`make card`"):
        run_stage(card.main, committed, "--check")
    run_stage(card.main, committed)
    assert readme.read_text(encoding="utf-8") == text


def test_a_branch_with_other_params_passes_and_can_be_quoted(committed):
    change_params(committed, train__epochs=77)
    assert "other params" in run_stage(card.main, committed, "--check")
    run_stage(card.main, committed)
    assert "other params" not in run_stage(card.main, committed, "--check")


def test_an_unknown_mark_is_refused(committed):
    with open(committed / "README.md", "a", encoding="utf-8") as file:
        file.write("<!--=beauty-->1<!--/-->")
    with pytest.raises(UserError, match=r"README.md: unknown mark 'beauty'; there are "):
        run_stage(card.main, committed)
