"""The README is true: its links lead somewhere, its numbers are those of the last run."""

import json
import re

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_to_files(target):
    assert (ROOT / target).exists()


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z-]+)", "\n".join(re.findall(r"`([^`]+)`", README))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_result_is_that_of_the_committed_metrics():
    metrics = json.loads((ROOT / "metrics/evaluate.json").read_text(encoding="utf-8"))
    result = (
        f"**{metrics['accuracy']:.2%}**, {metrics['errors']} errors in {metrics['test_images']:,}"
    )
    assert result.replace("%", " %") in README
