"""The notebook: committed as it ran, the same everywhere, and it runs on any project."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, change_params, dvc, run

from stages.report.scores import percent

NOTEBOOK = "MNIST.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    return cells_of(ROOT)


def cells_of(project: Path) -> list[dict]:
    return json.loads((project / NOTEBOOK).read_text(encoding="utf-8"))["cells"]


def source(cells: list[dict], kind: str) -> str:
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == kind)


def printed(cells: list[dict], name: str = "stdout") -> str:
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output["text"]) for output in outputs if output.get("name") == name)


def execute(project: Path, check: bool = True):
    """Run the notebook as `make notebook` does; installing the environment is left out."""
    shutil.copy(ROOT / NOTEBOOK, project)
    shutil.copy(ROOT / "Makefile", project)
    return run("make", "-o", ".venv/installed-dev", "notebook", cwd=project, check=check)


def test_it_was_run_from_top_to_bottom(cells):
    counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert printed(cells, "stderr") == "", "no warnings"
    assert not re.search(r"(^|[\s\"'(])/(home|root|work|tmp|usr)/", printed(cells))


def test_links_lead_to_files(cells):
    targets = set(re.findall(r"\]\(([^)#:]+)\)", source(cells, "markdown")))
    assert {target for target in targets if not (ROOT / target).is_file()} == set()


def test_its_accuracy_is_that_of_the_committed_metrics(cells):
    shown = run("git", "show", "HEAD:metrics/evaluate.json", cwd=ROOT, check=False)
    if shown.returncode:
        pytest.skip("this folder has no Git history to compare with")
    then = run("git", "log", "-1", "--format=%H", "--", NOTEBOOK, cwd=ROOT).stdout.strip()
    if run("git", "diff", then, "HEAD", "--", "params.yaml", cwd=ROOT).stdout:
        pytest.skip("the notebook shows a run of other params; `make notebook` shows this one")
    accuracy = percent(json.loads(shown.stdout)["accuracy"])
    assert f"accuracy {accuracy}, 95 % interval" in printed(cells), "run `make notebook`"


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("make") and shutil.which("jupyter")),
    reason="make or Jupyter is not installed: see requirements-dev.txt",
)
def test_it_runs_on_another_project_and_says_what_to_do_before_the_pipeline_has_run(folder):
    change_params(folder, seeds=[1, 0], package__average_shift=0)
    result = execute(folder, check=False)
    assert "error: models/trained/seed-1.keras cannot be loaded" in result.stderr
    assert (folder / NOTEBOOK).read_bytes() == (ROOT / NOTEBOOK).read_bytes()
    dvc(folder, "repro")
    execute(folder)
    metrics = json.loads((folder / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert f"accuracy {percent(metrics['accuracy'])}, 95 % interval" in printed(cells_of(folder))
    before = (folder / NOTEBOOK).read_bytes()
    execute(folder)
    assert (folder / NOTEBOOK).read_bytes() == before, "run again, it is the same"
