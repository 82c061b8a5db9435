"""Runs at the same time, in one checkout or on one cache, leave what an undisturbed run leaves."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import contents, copy_project, dvc, run

pytestmark = pytest.mark.slow
UNSEEN = (".git", ".dvc", "__pycache__", "dvc.lock")


def start(project: Path) -> Future:
    """Run the pipeline up to the training, beside this process."""
    return ThreadPoolExecutor(1).submit(run, "dvc", "repro", "train", cwd=project, check=False)


def assert_undisturbed(project: Path, finished: Path) -> None:
    """The pipeline up to the training left what it leaves in an undisturbed run."""
    found, expected = (contents(folder, *UNSEEN) for folder in (project, finished))
    assert [path for path in found if found[path] != expected[path]] == []
    assert {"data/processed/test/images.npy", "models/trained/seed-0.keras"} <= found.keys()


def test_runs_in_one_checkout(finished, tmp_path):
    """Two begin together, one while a stage runs."""
    project = copy_project(tmp_path / "project")
    runs = []
    for pause in (0, 0, 6):
        time.sleep(pause)
        runs.append(start(project))
    results = [running.result() for running in runs]
    assert 0 in [result.returncode for result in results]
    for result in results:
        output = result.stdout + result.stderr
        assert "Traceback" not in output
        if result.returncode:
            assert "is busy, it is being blocked by" in output or "Unable to acquire lock" in output
    dvc(project, "repro", "train")
    assert_undisturbed(project, finished)
    assert "up to date" in dvc(project, "status", "train")


def test_two_checkouts_that_share_a_cache(finished, tmp_path):
    projects = [copy_project(tmp_path / name / "project") for name in ("one", "two")]
    for project in projects:
        dvc(project, "cache", "dir", "--local", str(tmp_path / "cache"))
    for running in [start(project) for project in projects]:
        assert running.result().returncode == 0, running.result().stderr
    for project in projects:
        assert_undisturbed(project, finished)
        assert "up to date" in dvc(project, "status", "train")
        run("git", "clean", "-fdXq", "--", "data", "models", cwd=project)  # only what Git ignores
        dvc(project, "checkout", "--with-deps", "train")
        assert_undisturbed(project, finished)  # so does the cache
