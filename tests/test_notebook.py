"""The notebook: committed as it ran, small, the same everywhere, and it runs on any project."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, change_params, copy_project, run

NOTEBOOK = "MNIST.ipynb"
LARGEST = 600_000  # bytes: GitHub shows larger ones slowly or not at all


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / NOTEBOOK, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def test_was_run_from_top_to_bottom_without_error(notebook):
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert {output.output_type for output in outputs(notebook)} == {
        *("display_data", "execute_result", "stream")
    }
    assert "stderr" not in {output.get("name") for output in outputs(notebook)}, "no warnings"
    assert pictures(notebook) >= 8


def test_is_small_and_says_nothing_of_the_machine_that_ran_it(notebook):
    text = (ROOT / NOTEBOOK).read_text(encoding="utf-8")
    assert len(text) < LARGEST
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert not [cell for cell in notebook.cells if cell.metadata]
    texts = [cell.source for cell in notebook.cells]
    for output in outputs(notebook):
        texts += [output.get("text", "")] + list(output.get("data", {}).values())
    assert not re.search(r"(^|[\s\"'(])(/[a-z]+/|[A-Z]:\\)", "\n".join(texts)), "absolute path"


def test_cells_are_short_and_named(notebook):
    assert max(len(cell.source.splitlines()) for cell in code_cells(notebook)) <= 15
    assert all(re.fullmatch("[a-z-]+", cell.id) for cell in notebook.cells)


def test_trains_nothing(notebook):
    source = "\n".join(cell.source for cell in code_cells(notebook))
    assert not re.search(r"\bfit\(|\btrain\(|compile\(|build\(|GradientTape", source)


def test_links_lead_to_files_of_every_stage(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    targets = set(re.findall(r"\]\(([^)#:]+)\)", text))
    assert all((ROOT / target).is_file() for target in targets)
    assert {f"stages/{stage}.py" for stage in ("download", "preprocess", "train", "evaluate")} <= (
        targets
    )


def test_numbers_are_those_of_the_committed_metrics(notebook):
    """Of those in Git, since the folder's own may be of a run that someone is trying out."""
    shown = run("git", "show", "HEAD:metrics/evaluate.json", cwd=ROOT, check=False)
    if shown.returncode:
        pytest.skip("this folder has no Git history to compare with")
    metrics = json.loads(shown.stdout)
    printed = "".join(output.get("text", "") for output in outputs(notebook))
    assert f"dataset: {metrics['dataset']}," in printed
    assert f"accuracy {metrics['accuracy']:.2%}, 95 % interval" in printed, "run `make notebook`"


def execute(project: Path, check: bool = True):
    """Run the notebook as `make notebook` does; installing the environment is left out."""
    shutil.copy(ROOT / "Makefile", project)
    shutil.copy(ROOT / "requirements.txt", project)
    shutil.copy(ROOT / NOTEBOOK, project)
    return run("make", "-o", ".venv/installed", "notebook", cwd=project, check=check)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_runs_in_a_project_whose_pipeline_has_run(tmp_path, notebook):
    project = copy_project(tmp_path / "project")
    change_params(project, train__seeds=[1, 0])
    run("dvc", "repro", cwd=project)
    execute(project)
    found = nbformat.read(project / NOTEBOOK, as_version=4)
    assert [cell.source for cell in found.cells] == [cell.source for cell in notebook.cells]
    test_was_run_from_top_to_bottom_without_error(found)
    metrics = json.loads((project / "metrics/evaluate.json").read_text(encoding="utf-8"))
    first = metrics["seeds"]["1"]
    printed = "".join(output.get("text", "") for output in outputs(found))
    for part in (
        *("dataset: digits", "with one more axis: True", f"accuracy {metrics['accuracy']:.2%}"),
        f"{first['errors']} errors in 360 test images: accuracy {first['accuracy']:.2%}",
    ):
        assert part in printed
    before = (project / NOTEBOOK).read_bytes()
    run("make", "-o", ".venv/installed", "notebook", cwd=project)
    assert (project / NOTEBOOK).read_bytes() == before, "run again, it is the same"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_says_what_to_do_where_the_pipeline_has_not_run(tmp_path):
    project = copy_project(tmp_path / "project")
    result = execute(project, check=False)
    assert result.returncode != 0
    assert "error: models/seed-0.keras not found: run `dvc repro` to train it" in result.stderr
    assert (project / NOTEBOOK).read_bytes() == (ROOT / NOTEBOOK).read_bytes()
