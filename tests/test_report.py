"""The summary of a pull request, made by the workflow's own script in a fresh clone."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, change_params, commit, dvc, run

WORKFLOW = ROOT / ".github/workflows/pull-request.yml"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_the_summary_tells_what_a_branch_changes(folder: Path, tmp_path: Path):
    """All that it needs is in Git: the clone has neither data nor a DVC remote."""
    run("git", "checkout", "-q", "-b", "longer", cwd=folder)
    change_params(folder, train__epochs=3)
    dvc(folder, "repro")
    commit(folder, "3 epochs")
    run("git", "clone", "-q", str(folder), "clone", cwd=tmp_path)
    clone, summary = tmp_path / "clone", tmp_path / "summary.md"
    assert not (clone / "data/processed").exists()
    (job,) = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()
    (script,) = (step["run"] for step in job["steps"] if step.get("name") == "summary")
    variables = {"GITHUB_STEP_SUMMARY": str(summary), "BASE": "origin/main"}
    run("bash", "-e", "-c", script, cwd=clone, **variables)
    text = summary.read_text(encoding="utf-8")
    verdict = run("python", "-m", "tools.compare", "origin/main", cwd=clone).stdout.splitlines()
    assert verdict[-1] in text
    assert re.search(r"\| params.yaml \| train.epochs \| 2 +\| 3 ", text)
    assert re.search(r"\| metrics/evaluate.json +\| accuracy ", text)
    assert (clone / "dvc_plots/index.html").is_file()
