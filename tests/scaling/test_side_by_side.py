"""Networks trained side by side in one checkout are those that are trained one after the other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import NOTES, change_params, commit, contents, copy_project, run, stages_run

pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2, 3)


def test_seeds_side_by_side_in_one_checkout(tmp_path: Path):
    beside, after = (copy_project(tmp_path / name / "project") for name in ("beside", "after"))
    for project in (beside, after):
        change_params(project, seeds=list(SEEDS))
        commit(project, "four seeds")
    run("dvc", "repro", cwd=after)

    def train(seed: int) -> set[str]:
        command = ("dvc", "--wait-for-lock", "repro", "--single-item", f"train@{seed}")
        return stages_run(run(*command, cwd=beside))

    run("dvc", "repro", "preprocess", cwd=beside)
    with ThreadPoolExecutor(len(SEEDS)) as pool:
        assert list(pool.map(train, SEEDS)) == [{f"train@{seed}"} for seed in SEEDS]
    rest = stages_run(run("dvc", "repro", cwd=beside))
    assert rest == {"package", "evaluate", "robustness"}
    assert contents(beside, *NOTES) == contents(after, *NOTES)
    assert "up to date" in run("dvc", "status", cwd=beside).stdout
