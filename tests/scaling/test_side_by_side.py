"""Networks trained side by side in one checkout are those that are trained one after the other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import NOTES, change_params, contents, copy_project, dvc, run, stages_run

pytestmark = pytest.mark.slow
SEEDS = (0, 1)


def test_seeds_side_by_side_in_one_checkout(folder: Path, tmp_path: Path):
    beside = copy_project(tmp_path / "beside")
    for project in (beside, folder):
        change_params(project, seeds=list(SEEDS))
    dvc(folder, "repro")

    def train(seed: int) -> set[str]:
        command = ("dvc", "--wait-for-lock", "repro", "--single-item", f"train@{seed}")
        return stages_run(run(*command, cwd=beside).stdout)

    dvc(beside, "repro", "preprocess")
    with ThreadPoolExecutor(len(SEEDS)) as pool:
        assert list(pool.map(train, SEEDS)) == [{f"train@{seed}"} for seed in SEEDS]
    rest = stages_run(dvc(beside, "repro"))
    assert rest == {*(f"package@{seed}" for seed in SEEDS), "evaluate", "robustness"}
    assert contents(beside, *NOTES) == contents(folder, *NOTES)
    assert "up to date" in dvc(beside, "status")
