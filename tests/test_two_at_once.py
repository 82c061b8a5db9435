"""Runs at the same time, in one checkout or on one cache, leave what an undisturbed run leaves."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import contents, copy_project, dvc, run

pytestmark = pytest.mark.slow
UNSEEN = (".git", ".dvc", "__pycache__")


def start(project: Path) -> Future:
    """Run the pipeline beside this process."""
    return ThreadPoolExecutor(1).submit(run, "dvc", "repro", cwd=project, check=False)


@pytest.fixture(scope="module")
def expected(finished: Path) -> dict[str, bytes]:
    """What an undisturbed run leaves."""
    return contents(finished, *UNSEEN)


def test_runs_in_one_checkout(expected, tmp_path):
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
    dvc(project, "repro")
    assert contents(project, *UNSEEN) == expected
    assert "up to date" in dvc(project, "status")


def test_two_checkouts_that_share_a_cache(expected, tmp_path):
    projects = [copy_project(tmp_path / name / "project") for name in ("one", "two")]
    for project in projects:
        dvc(project, "cache", "dir", "--local", str(tmp_path / "cache"))
    for running in [start(project) for project in projects]:
        assert running.result().returncode == 0, running.result().stderr
    for project in projects:
        assert contents(project, *UNSEEN) == expected
        assert "up to date" in dvc(project, "status")
        run("git", "clean", "-fdXq", "--", "data", "models", cwd=project)  # only what Git ignores
        dvc(project, "checkout")
        assert contents(project, *UNSEEN) == expected, "the cache they share holds something else"
