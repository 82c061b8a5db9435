"""Comparing two runs: exact numbers on tiny cases, and Git revisions as a user names them."""

import json
from math import comb
from pathlib import Path

import pandas as pd
import pytest
from conftest import run

from tools import compare
from stages.base.stage import UserError


def predictions(right: list[bool]) -> pd.DataFrame:
    """Images that are all a 7, read as 7 where `right`, else as 1."""
    return pd.DataFrame(
        {
            "index": range(len(right)),
            "actual": [7] * len(right),
            "predicted": [7 if hit else 1 for hit in right],
        }
    )


@pytest.mark.parametrize(("this", "other"), [(8, 1), (1, 8), (3, 3), (0, 0), (5, 0)])
def test_p_value_is_that_of_a_coin(this, other):
    both = 40
    result = compare.compare(
        predictions([True] * both + [True] * this + [False] * other),
        predictions([True] * both + [False] * this + [True] * other),
    )
    decisive = this + other
    extreme = sum(comb(decisive, k) for k in range(min(this, other) + 1)) / 2**decisive
    assert result.p_value == pytest.approx(min(1, 2 * extreme))
    assert result.only_this == list(range(both, both + this))
    assert result.only_other == list(range(both + this, both + decisive))
    assert result.accuracy == pytest.approx((both + this) / (both + decisive))


@pytest.mark.parametrize(
    ("this", "other", "words"),
    [(9, 1, "is better than main"), (1, 9, "is worse than main"), (5, 4, "No evidence")],
)
def test_conclusion_is_a_plain_sentence(this, other, words):
    result = compare.compare(
        predictions([True] * this + [False] * other), predictions([False] * this + [True] * other)
    )
    assert words in result.conclusion("main")


def write_run(folder: Path, frame: pd.DataFrame, dataset: str = "digits") -> None:
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "plots").mkdir(exist_ok=True)
    (folder / compare.METRICS).write_text(json.dumps({"dataset": dataset}), encoding="utf-8")
    frame.assign(confidence=0.9).to_csv(folder / compare.PREDICTIONS, index=False)


@pytest.fixture
def repository(workspace: Path) -> Path:
    """A Git repository whose branch main has a run, and an empty branch."""
    run("git", "init", "-q", "-b", "main", cwd=workspace)
    identity = ("-c", "user.name=Tests", "-c", "user.email=tests@example.com")
    run("git", *identity, "commit", "-q", "--allow-empty", "-m", "empty", cwd=workspace)
    run("git", "branch", "empty", cwd=workspace)
    write_run(workspace, predictions([True, True, False, False, True]))
    run("git", "add", "-A", cwd=workspace)
    run("git", *identity, "commit", "-qm", "run", cwd=workspace)
    return workspace


def compared(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["compare", *arguments])
    compare.main()


def test_workspace_against_a_branch(repository, monkeypatch, capsys):
    write_run(repository, predictions([True, True, True, False, False]))
    compared(monkeypatch, "main")
    text = capsys.readouterr().out
    for part in ("digits, 5 test images", "60.00%", "1 (2)", "1 (4)", "No evidence"):
        assert part in text
    compared(monkeypatch, "main", "--json")
    result = json.loads(capsys.readouterr().out)
    assert (result["only_this"], result["only_other"], result["p_value"]) == ([2], [4], 1.0)


def test_same_in_a_clone(repository, tmp_path_factory, monkeypatch, capsys):
    clone = tmp_path_factory.mktemp("clone")
    run("git", "clone", "-q", str(repository), str(clone), cwd=clone)
    monkeypatch.chdir(clone)
    compared(monkeypatch, "origin/main")
    assert "No evidence" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "revision", "words"),
    [
        (None, "nowhere", "'nowhere': no such branch"),
        (None, "empty", "'empty' has no metrics/evaluate.json"),
        (lambda frame: (frame, "mnist"), "main", "data sets differ: mnist here, digits"),
        (lambda frame: (frame[:3], "digits"), "main", "test images differ: 3 here, 5 in"),
        (lambda frame: (frame.assign(actual=1), "digits"), "main", "with other labels"),
        (lambda frame: (frame[["index"]], "digits"), "main", "the workspace: .* is damaged"),
    ],
)
def test_what_cannot_be_compared_is_refused(repository, monkeypatch, change, revision, words):
    if change:
        write_run(repository, *change(predictions([True, True, False, False, True])))
    with pytest.raises(UserError, match=words):
        compared(monkeypatch, revision)


def test_a_workspace_without_a_run_is_told_what_to_do(repository, monkeypatch):
    (repository / compare.PREDICTIONS).unlink()
    with pytest.raises(UserError, match="run `dvc repro` first"):
        compared(monkeypatch, "main")


def test_outside_of_git_the_reason_is_gits(workspace, monkeypatch):
    write_run(workspace, predictions([True]))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(workspace.parent))
    with pytest.raises(UserError, match="not a git repository"):
        compared(monkeypatch, "main")
