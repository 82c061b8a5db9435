"""Two runs at once: in one checkout, and in two checkouts that share DVC's cache.

One may wait or be turned away with a clear message; neither leaves a result that an undisturbed
run would not have left, and a run afterwards has nothing to complain about.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import contents, copy_project, run

pytestmark = pytest.mark.slow
UNSEEN = (".git", ".dvc", "__pycache__")


def start(project: Path) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=project,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def expected(finished: Path) -> dict[str, bytes]:
    """What an undisturbed run leaves."""
    return contents(finished, *UNSEEN)


@pytest.mark.parametrize("seed", range(4))
def test_two_runs_in_one_checkout(
    seed: int,
    expected: dict[str, bytes],
    tmp_path: Path,
    record_property: Callable[[str, int], None],
):
    project = copy_project(tmp_path / "project")
    first = start(project)
    time.sleep(random.Random(seed).uniform(0, 12) if seed else 0)
    second = start(project)
    outputs = [process.communicate(timeout=900)[0] for process in (first, second)]
    codes = [first.returncode, second.returncode]
    assert 0 in codes, outputs
    for code, output in zip(codes, outputs, strict=True):
        assert "Traceback" not in output
        if code:
            assert "is busy, it is being blocked by" in output or "Unable to acquire lock" in output
            record_property("turned away with a message", 1)
    run("dvc", "repro", cwd=project)
    assert contents(project, *UNSEEN) == expected
    assert "up to date" in run("dvc", "status", cwd=project).stdout
    record_property("pairs of runs in one checkout", 1)


def test_two_checkouts_that_share_a_cache(
    expected: dict[str, bytes], tmp_path: Path, record_property: Callable[[str, int], None]
):
    projects = [copy_project(tmp_path / name / "project") for name in ("one", "two")]
    for project in projects:
        run("dvc", "cache", "dir", "--local", str(tmp_path / "cache"), cwd=project)
    processes = [start(project) for project in projects]
    for process in processes:
        output = process.communicate(timeout=900)[0]
        assert process.returncode == 0, output
    for project in projects:
        assert contents(project, *UNSEEN) == expected
        assert "up to date" in run("dvc", "status", cwd=project).stdout
        run("git", "clean", "-fdXq", "--", "data", "models", cwd=project)  # only what Git ignores
        run("dvc", "checkout", cwd=project)
        assert contents(project, *UNSEEN) == expected, "the cache they share holds something else"
    record_property("pairs of checkouts with one cache", 1)
