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


def committed(path: str) -> dict:
    """A metrics file in Git, since the folder's own may be of a run that someone is trying out."""
    shown = run("git", "show", f"HEAD:{path}", cwd=ROOT, check=False)
    if shown.returncode:
        pytest.skip("this folder has no Git history to compare with")
    return json.loads(shown.stdout)


def test_results_are_those_of_the_committed_metrics():
    metrics = committed("metrics/evaluate.json")
    text = " ".join(README.split())
    accuracy = f"{metrics['accuracy']:.2%}".replace("%", " %")
    assert f"**{accuracy}**, {metrics['errors']} errors in {metrics['test_images']:,}" in text
    after, before = (100 * metrics[f"calibration_error{key}"] for key in ("", "_unscaled"))
    assert f"{after:.2f} points off on average in place of {before:.2f}" in text


def test_corruptions_are_those_of_the_committed_metrics():
    metrics = committed("metrics/robustness.json")
    text = " ".join(README.split())
    error, clean = metrics["mean_error"], 1 - metrics["clean"]["accuracy"]
    ways = len(metrics["corruptions"])
    assert f"corrupts {metrics['images']:,} test images in {ways} ways" in text
    assert f"{100 * error:.1f} % are misread, against {100 * clean:.2f} %" in text
    seen = [metrics["corruptions"][name] for name in ("shear", "translate", "scale", "rotate")]
    rates = sorted(100 * (1 - result["accuracy"]) for result in seen)
    assert f"{rates[0]:.1f} to {rates[-1]:.1f} % misread" in text
