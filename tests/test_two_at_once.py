"""Two runs at once, in one checkout or on one cache, leave what an undisturbed run leaves."""

import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import contents, copy_project, run

pytestmark = pytest.mark.slow
UNSEEN = (".git", ".dvc", "__pycache__")


def start(project: Path) -> Future:
    """Run the pipeline beside this process."""
    return ThreadPoolExecutor(1).submit(run, "dvc", "repro", cwd=project, check=False)


@pytest.fixture(scope="module")
def expected(finished: Path) -> dict[str, bytes]:
    """What an undisturbed run leaves."""
    return contents(finished, *UNSEEN)


@pytest.mark.parametrize("seed", range(2))
def test_two_runs_in_one_checkout(seed, expected, tmp_path):
    project = copy_project(tmp_path / "project")
    first = start(project)
    time.sleep(random.Random(seed).uniform(0, 12) if seed else 0)
    second = start(project)
    results = [first.result(), second.result()]
    assert 0 in [result.returncode for result in results]
    for result in results:
        output = result.stdout + result.stderr
        assert "Traceback" not in output
        if result.returncode:
            assert "is busy, it is being blocked by" in output or "Unable to acquire lock" in output
    run("dvc", "repro", cwd=project)
    assert contents(project, *UNSEEN) == expected
    assert "up to date" in run("dvc", "status", cwd=project).stdout


def test_two_checkouts_that_share_a_cache(expected, tmp_path):
    projects = [copy_project(tmp_path / name / "project") for name in ("one", "two")]
    for project in projects:
        run("dvc", "cache", "dir", "--local", str(tmp_path / "cache"), cwd=project)
    for running in [start(project) for project in projects]:
        assert running.result().returncode == 0, running.result().stderr
    for project in projects:
        assert contents(project, *UNSEEN) == expected
        assert "up to date" in run("dvc", "status", cwd=project).stdout
        run("git", "clean", "-fdXq", "--", "data", "models", cwd=project)  # only what Git ignores
        run("dvc", "checkout", cwd=project)
        assert contents(project, *UNSEEN) == expected, "the cache they share holds something else"
