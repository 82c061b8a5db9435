"""The report on a branch, as continuous integration makes it, and the workflows that call it."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, change_params, commit, run

from stages.report.scores import percent

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def workflow(path: Path) -> dict:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content | {"on": content[True]}  # YAML 1.1 reads the key `on` as true


def steps(path: Path) -> list[dict]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_take_actions_of_a_major_version_and_names_from_variables(path):
    """A branch may be called `$(rm -rf .)`: pasted into a script, it would run."""
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in used), used
    assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]


def test_who_may_write_runs_no_code_of_a_pull_request():
    for path in WORKFLOWS:
        content = workflow(path)
        granted = [content["permissions"]]
        granted += [job.get("permissions", {}) for job in content["jobs"].values()]
        writes = any("write" in rights.values() for rights in granted)
        if writes:
            assert set(content["on"]) == {"workflow_run"}
            assert "checkout" not in path.read_text(encoding="utf-8")
        else:
            assert "pull_request_target" not in path.read_text(encoding="utf-8")


def test_workflows_name_what_there_is():
    """The comment waits for the other workflow; tests run on the oldest and the newest Python."""
    comment, tests, report = (
        workflow(ROOT / f".github/workflows/{name}.yml")
        for name in ("comment", "tests", "pull-request")
    )
    assert comment["on"]["workflow_run"]["workflows"] == [report["name"]]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    ends = re.search(r"Python (3\.\d+) to (3\.\d+) is needed", makefile).groups()
    assert tests["jobs"]["tests"]["strategy"]["matrix"]["python"] == [*ends]


@pytest.fixture(scope="module")
def clone(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, without data or a DVC remote, of a project whose branch trains for longer."""
    project = tmp_path_factory.mktemp("report") / "project"
    shutil.copytree(finished, project, symlinks=True)
    run("git", "checkout", "-q", "-b", "longer", cwd=project)
    (project / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/report", project / ".ci")
    change_params(project, train__epochs=3)
    run("dvc", "repro", cwd=project)
    commit(project, "3 epochs")
    target = project.parent / "clone"
    run("git", "clone", "-q", str(project), str(target), cwd=project.parent)
    assert not (target / "data/processed").exists()
    return target


def report(clone: Path, *arguments: str, **environment: str):
    return run("bash", ".ci/report", *arguments, cwd=clone, check=False, **environment)


@pytest.mark.slow
def test_report_tells_what_a_branch_changes(clone):
    result = report(clone, "origin/main")
    assert result.returncode == 0, result.stderr
    text = (clone / "report/report.md").read_text(encoding="utf-8")
    before, after = (
        json.loads(run("git", "show", f"{name}:metrics/evaluate.json", cwd=clone).stdout)[
            "accuracy"
        ]
        for name in ("origin/main", "HEAD")
    )
    assert before != after
    assert re.search(rf"accuracy here +{percent(after)}", text)
    assert re.search(rf"accuracy of origin/main +{percent(before)}", text)
    assert re.search(rf"\| accuracy +\| {round(before, 5)} ", text), "as DVC rounds it"
    assert re.search(r"\| params.yaml \| train.epochs \| 1 +\| 3 ", text)
    verdict = run("python", "-m", "tools.compare", "origin/main", cwd=clone).stdout.splitlines()
    assert f"**{verdict[-1]}**" in text
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(pictures) == 6
    assert all((clone / "report" / path).is_file() for path in pictures)
    assert (clone / "report/plots/index.html").is_file()
    assert run("git", "status", "--porcelain", cwd=clone).stdout == "", "the report is ignored"


@pytest.mark.slow
def test_pictures_of_a_comment_are_those_in_git(clone, tmp_path):
    addresses = {"BEFORE_URL": "https://host/old", "AFTER_URL": "https://host/new"}
    report(clone, "origin/main", str(tmp_path), **addresses)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\(https://host/(?:old|new)/([^)]+)\)", text)
    assert len(pictures) == 6
    assert all((clone / path).is_file() for path in pictures)
    report(clone, "origin/main", str(tmp_path), **addresses | {"AFTER_URL": ""})
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "![" not in text
    assert "not made by the code and params" in text


@pytest.mark.slow
def test_report_on_no_change_says_so_and_on_an_unknown_revision_is_refused(clone, tmp_path):
    report(clone, "HEAD", str(tmp_path))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "misclassify the same images" in text
    assert text.count("No difference.") == 2
    result = report(clone, "nowhere", str(tmp_path / "report"))
    assert result.returncode == 1
    assert result.stderr == "error: revision 'nowhere': no such branch, tag or commit\n"
    assert not (tmp_path / "report").exists()
