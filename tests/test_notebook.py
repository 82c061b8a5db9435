"""The notebook: committed as it ran, the same everywhere, and it runs on any project."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, change_params, copy_project, run

from stages.report.scores import percent

NOTEBOOK = "MNIST.ipynb"


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / NOTEBOOK, as_version=4)


def printed(notebook: nbformat.NotebookNode, name: str = "stdout") -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output["text"] for output in outputs if output.get("name") == name)


def execute(project: Path, check: bool = True):
    """Run the notebook as `make notebook` does; installing the environment is left out."""
    shutil.copy(ROOT / NOTEBOOK, project)
    shutil.copy(ROOT / "Makefile", project)
    return run("make", "-o", ".venv/installed", "notebook", cwd=project, check=check)


def test_it_was_run_from_top_to_bottom(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert printed(notebook, "stderr") == "", "no warnings"
    assert not re.search(r"(^|[\s\"'(])/(home|root|work|tmp|usr)/", printed(notebook))


def test_links_lead_to_files(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    targets = set(re.findall(r"\]\(([^)#:]+)\)", text))
    assert {target for target in targets if not (ROOT / target).is_file()} == set()


def test_its_accuracy_is_that_of_the_committed_metrics(notebook):
    shown = run("git", "show", "HEAD:metrics/evaluate.json", cwd=ROOT, check=False)
    if shown.returncode:
        pytest.skip("this folder has no Git history to compare with")
    then = run("git", "log", "-1", "--format=%H", "--", NOTEBOOK, cwd=ROOT).stdout.strip()
    if run("git", "diff", then, "HEAD", "--", "params.yaml", cwd=ROOT).stdout:
        pytest.skip("the notebook shows a run of other params; `make notebook` shows this one")
    accuracy = percent(json.loads(shown.stdout)["accuracy"])
    assert f"accuracy {accuracy}, 95 % interval" in printed(notebook), "run `make notebook`"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_it_runs_on_another_project_and_says_what_to_do_before_the_pipeline_has_run(tmp_path):
    project = copy_project(tmp_path / "project")
    change_params(project, seeds=[1, 0], package__average_shift=0)
    result = execute(project, check=False)
    assert "error: models/trained/seed-1/network.keras cannot be loaded" in result.stderr
    assert (project / NOTEBOOK).read_bytes() == (ROOT / NOTEBOOK).read_bytes()
    run("dvc", "repro", cwd=project)
    execute(project)
    found = nbformat.read(project / NOTEBOOK, as_version=4)
    metrics = json.loads((project / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert f"accuracy {percent(metrics['accuracy'])}, 95 % interval" in printed(found)
    before = (project / NOTEBOOK).read_bytes()
    execute(project)
    assert (project / NOTEBOOK).read_bytes() == before, "run again, it is the same"
