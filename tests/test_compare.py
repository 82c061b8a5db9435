"""`python -m tools.compare`: McNemar's test against hand computation; real Git repositories."""

import functools
import re
import runpy
from pathlib import Path

import pytest
from conftest import run, run_stage

from stages.base.stage import UserError
from tools import compare

PROGRAM = functools.partial(runpy.run_path, compare.__file__, run_name="__main__")


def of(*misclassified: int) -> compare.Run:
    return compare.Run("mnist", 10_000, frozenset(misclassified))


@pytest.mark.parametrize(
    ("here", "there", "sentence"),
    [
        ((), range(9), "The workspace is better than main: without a real difference, chance"),
        (range(9), (), "The workspace is worse than main"),
        ((1,), (2,), "No evidence that the workspace and main differ: without"),
        ((1, 2), (2, 1), "The workspace and main misclassify the same images."),
        ((), range(99), "as large in less than 0.01 % of cases."),
        ((1, 2), (3, 4, 5, 6), "as large in 68.75 % of cases."),
    ],
)
def test_conclusion_is_a_true_sentence(here, there, sentence):
    assert sentence in compare.conclusion(of(*here), of(*there), "main")
    assert compare.p_value(of(*here), of(*here)) == 1


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose main has three errors, and a workspace with two."""
    (tmp_path / "metrics").mkdir()
    run("git", "init", "-q", "-b", "main", cwd=tmp_path)
    write(tmp_path, "digits", 5, 6, 7)
    run("git", "add", "-A", cwd=tmp_path)
    identity = ("-c", "user.name=Tests", "-c", "user.email=tests@example.com")
    run("git", *identity, "commit", "-qm", "run", cwd=tmp_path)
    write(tmp_path, "digits", 5, 8)
    return tmp_path


def write(project: Path, dataset: str, *misclassified: int) -> None:
    (project / "params.yaml").write_text(f"download:\n  dataset: {dataset}\n")
    rows = [f"{index},1,2,0.5" for index in misclassified]
    lines = "\n".join(["index,actual,predicted,confidence", *rows, ""])
    (project / "metrics/misclassified.csv").write_text(lines)


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
    printed = run_stage(PROGRAM, project, "main")
    found = [re.sub(" {2,}", "  ", line) for line in printed.splitlines()]
    assert found == [
        "digits, 360 test images",
        f"  accuracy here  {accuracy} %",
        "  accuracy of main  99.17 %",
        f"  correct only here  {here}",
        f"  correct only in main  {there}",
        compare.conclusion(of(*misclassified), of(5, 6, 7), "main"),
    ]


@pytest.mark.parametrize(
    ("revision", "dataset", "message"),
    [
        ("nowhere", "digits", "no run in nowhere: invalid object name 'nowhere'"),
        ("main", "kmnist", "main is a run on digits, the workspace one on kmnist: their"),
    ],
)
def test_what_cannot_be_compared_is_refused(project, revision, dataset, message):
    write(project, dataset, 1)
    with pytest.raises(UserError, match=message):
        run_stage(compare.main, project, revision)


def test_a_workspace_without_a_run_is_refused(project):
    (project / "metrics/misclassified.csv").unlink()
    with pytest.raises(UserError, match="dvc repro"):
        run_stage(compare.main, project, "main")
