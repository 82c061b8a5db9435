"""The README is true: its links lead somewhere, its numbers are those of the last run."""

import json
import re

import pytest
from conftest import ROOT, run

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_to_files(target):
    assert (ROOT / target).exists()


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z-]+)", "\n".join(re.findall(r"`([^`]+)`", README))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_result_is_that_of_the_committed_metrics():
    """Those in Git, since the folder's own may be of a run that someone is trying out."""
    shown = run("git", "show", "HEAD:metrics/evaluate.json", cwd=ROOT, check=False)
    if shown.returncode:
        pytest.skip("this folder has no Git history to compare with")
    metrics = json.loads(shown.stdout)
    result = (
        f"**{metrics['accuracy']:.2%}**, {metrics['errors']} errors in {metrics['test_images']:,}"
    )
    assert result.replace("%", " %") in README
