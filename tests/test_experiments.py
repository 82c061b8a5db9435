"""`python -m tools.experiments`, and how a result is kept: real Git repositories, no DVC."""

import contextlib
import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import commit, git_init, run, run_stage

from stages.base.stage import UserError
from tools import experiments


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with the result of one epoch on its branch main."""
    git_init(tmp_path)
    write(tmp_path, 1)
    commit(tmp_path, "first")
    return tmp_path


def write(folder: Path, epochs: int, ran: int | None = None, seeds: tuple = (0,)) -> None:
    """A run of so many epochs, with an accuracy of 0.9 and a hundredth per epoch.

    With `ran`, params.yaml was edited after a run of so many epochs.
    """
    ran = ran or epochs
    params = {"seeds": [*seeds], "download": {"dataset": "digits"}, "train": {"epochs": epochs}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    noted = {"params.yaml": {"train": {"epochs": ran}}}
    older = {"params.yaml": {"train": {"epochs": 77}}}
    entries = {f"train@{seed}": {"params": noted} for seed in seeds}
    # DVC keeps the entries of a seed and of stages that were taken out since.
    entries |= {name: {"params": older} for name in ("train@5", "train", "environment")}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": entries}))
    pipeline = {"stages": {"train": {"matrix": {"seed": "${seeds}"}}, "evaluate": {}}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    (folder / "metrics/package").mkdir(parents=True, exist_ok=True)
    packaged = folder / f"metrics/package/seed-{seeds[0]}.json"
    packaged.write_text('{"val_loss": 0.25}')
    evaluated = {"accuracy": 0.9 + ran / 100}
    (folder / "metrics/evaluate.json").write_text(json.dumps(evaluated))
    (folder / "metrics/robustness.json").write_text('{"corrupt": 0.0312}')


def keep(project: Path, name: str = "tried") -> str | None:
    with contextlib.chdir(project):
        return experiments.keep(name)


def listed(project: Path, monkeypatch: pytest.MonkeyPatch, columns: int = 200) -> list[list[str]]:
    """The rows that are printed, as words."""
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run_stage(experiments.main, project).splitlines()
    assert max(map(len, lines)) <= columns
    return [line.split() for line in lines]


def test_a_result_is_kept_once_and_the_index_stays(project):
    assert keep(project) is None, "it is the committed one"
    write(project, 2)
    (project / "staged").write_text("")
    run("git", "add", "staged", cwd=project)
    before = run("git", "status", "--porcelain", cwd=project).stdout
    first = keep(project)
    assert run("git", "status", "--porcelain", cwd=project).stdout == before
    write(project, 3)
    second = keep(project)
    (project / "notes.txt").write_text("which is not of the result")
    write(project, 2)
    assert keep(project) == first != second
    shown = run("git", "show", "--stat", reference(project, second), cwd=project).stdout
    assert "staged" in shown


def reference(project: Path, name: str) -> str:
    pattern = f"refs/exps/*/*/{name}"
    return run("git", "for-each-ref", "--format=%(refname)", pattern, cwd=project).stdout.strip()


def test_all_that_was_tried_is_listed_newest_first_across_commits(project, monkeypatch):
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2030-01-01T00:00:01Z")
    write(project, 2)
    first = keep(project, "more")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2030-01-01T00:00:02Z")
    write(project, 3)
    commit(project, "three epochs")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2030-01-01T00:00:03Z")
    write(project, 4, seeds=(0, 1))
    second = keep(project, "seeds")

    head, *rows = listed(project, monkeypatch)
    assert head[:3] == ["name", "accuracy", "corrupt"]
    (name, accuracy, _, corrupt, _, loss, *changed), three, of_first, root = rows[1:5]
    assert (name, accuracy, corrupt, loss) == (second, "94.00", "3.12", "0.2500")
    assert changed == ["seeds=[0,1]", "train.epochs=4"]
    assert three[1] == "93.00"
    assert three[-3:] == ["“three", "epochs”", "train.epochs=3"]
    assert of_first[0] == first
    assert of_first[-1] == "train.epochs=2", "compared with the commit that it is based on"
    assert root[-1] == "“first”"
    assert rows[0][:2] == ["workspace", "94.00"]


@pytest.mark.parametrize("seeds", ["[0]", "3", ""])
def test_params_that_were_edited_since_the_run_show_no_result(project, monkeypatch, seeds):
    """However wrong they are."""
    write(project, 5, ran=1)
    params = project / "params.yaml"
    params.write_text(re.sub(r"seeds:\n- 0", f"seeds: {seeds}", params.read_text()))
    kept = keep(project)
    for row in listed(project, monkeypatch)[1:3]:
        assert row[0] in ("workspace", kept)
        assert row[1] == "-"


@pytest.mark.parametrize("columns", [80, 120])
def test_names_and_changes_are_whole_in_a_narrow_window(project, monkeypatch, columns):
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["train"] |= {"network": {"filters": [48, 96, 192, 192]}, "muon_learning_rate": 0.123}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    name = keep(project, "quite-a-long-name")
    words = [word for row in listed(project, monkeypatch, columns) for word in row]
    wanted = {name, "train.network.filters=[48,96,192,192]", "train.muon_learning_rate=0.123"}
    assert wanted <= set(words)


def test_without_git_it_says_so(project, monkeypatch):
    monkeypatch.setenv("PATH", str(project))
    with pytest.raises(UserError, match="install Git"):
        run_stage(experiments.main, project)
