"""`python -m tools.compare`: McNemar's test against hand computation; real Git repositories."""

import contextlib
import json
import re
from pathlib import Path

import pytest
from conftest import commit, git_init, run_stage

from stages.base.stage import UserError
from tools import compare
from tools.experiments import keep


def of(*misclassified: int) -> compare.Run:
    return compare.Run("digits", {"0": 180, "1": 180}, frozenset(misclassified))


@pytest.mark.parametrize(
    ("here", "there", "sentence"),
    [
        ((), range(9), "The model of the workspace is better than that of main: without"),
        (range(9), (), "The model of the workspace is worse than that of main"),
        ((1,), (2,), "No evidence that the models of the workspace and of main differ: without"),
        ((1, 2), (2, 1), "The models of the workspace and of main misclassify the same images."),
        ((), range(99), "as large in less than 0.01 % of cases."),
        ((1, 2), (3, 4, 5, 6), "as large in 68.75 % of cases."),
    ],
)
def test_conclusion_is_a_true_sentence(here, there, sentence):
    assert sentence in compare.conclusion(of(*here), of(*there), "main")
    assert compare.p_value(of(*here), of(*here)) == 1


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose main has three errors, the experiment `tried-…` one, the workspace two."""
    (tmp_path / "metrics").mkdir()
    git_init(tmp_path)
    write(tmp_path, "digits", 5, 6, 7)
    commit(tmp_path, "run")
    write(tmp_path, "digits", 9)
    with contextlib.chdir(tmp_path):
        keep("tried")
    write(tmp_path, "digits", 5, 8)
    return tmp_path


def write(project: Path, dataset: str, *misclassified: int, ones: int = 180) -> None:
    (project / "metrics/evaluate.json").write_text(json.dumps({"dataset": dataset}))
    rows = [f"{index},1,2,0.5" for index in misclassified]
    lines = "\n".join(["index,actual,predicted,confidence", *rows, ""])
    (project / "metrics/misclassified.csv").write_text(lines)
    matrix = f"actual,0,1\n0,180,0\n1,{len(misclassified)},{ones - len(misclassified)}\n"
    (project / "metrics/confusion_matrix.csv").write_text(matrix)


@pytest.mark.parametrize(
    ("misclassified", "accuracy", "here", "there"),
    [
        ((5, 8), "99.44", "2 (6, 7)", "1 (8)"),
        ((5, 6, 7), "99.17", "0", "0"),
        (range(20, 30), "97.22", "3 (5, 6, 7)", f"10 {(*range(20, 30),)}"),
        (range(20, 31), "96.94", "3 (5, 6, 7)", f"11 {(*range(20, 30),)}"[:-1] + ", …)"),
    ],
)
def test_command_compares_the_workspace_with_a_revision(
    project, misclassified, accuracy, here, there
):
    write(project, "digits", *misclassified)
    printed = run_stage(compare.main, project, "main")
    found = [re.sub(" {2,}", "  ", line) for line in printed.splitlines()]
    assert found[:6] == [
        "digits, 360 test images",
        f"  accuracy here  {accuracy} %",
        "  accuracy of main  99.17 %",
        f"  correct only here  {here}",
        f"  correct only in main  {there}",
        compare.conclusion(of(*misclassified), of(5, 6, 7), "main"),
    ]


def test_an_experiment_is_known_by_its_name(project):
    with contextlib.chdir(project):
        write(project, "digits", 9)
        name = keep("tried")
    write(project, "digits", 5, 8)
    printed = run_stage(compare.main, project, name)
    assert re.search(rf"accuracy of {name} +99.72 %", printed)
    assert "correct only here" in printed


def test_what_cannot_be_compared_is_refused(project):
    with pytest.raises(UserError, match="no branch, tag, commit or experiment 'nowhere'"):
        run_stage(compare.main, project, "nowhere")
    for dataset, ones in (("kmnist", 180), ("digits", 181)):
        write(project, dataset, 1, ones=ones)
        message = f"on {180 + ones} test images of {dataset}, main one on other 360 .* of digits"
        with pytest.raises(UserError, match=message):
            run_stage(compare.main, project, "main")


def test_a_workspace_without_a_run_is_refused(project):
    (project / "metrics/misclassified.csv").unlink()
    with pytest.raises(UserError, match="dvc repro"):
        run_stage(compare.main, project, "main")
