"""The benchmark of growing data, run by its command on `digits`, where a folder stands in for the
project's: what it writes and leaves, and how it refuses.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, change_params, run

from benchmarks import scale
from stages.dataset import digits
from stages.dataset import idx
from stages.dataset.catalogue import RAW, TRAIN_IMAGES, TRAIN_LABELS

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the memory of stages in /proc"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What the benchmark reads of the project's folder, with the files of `digits`."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    change_params(tmp_path, download__dataset="digits")
    digits.write_digits(tmp_path / RAW)
    (tmp_path / "space").mkdir()
    return tmp_path


def benchmark(project: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    command = ("python", "-m", "benchmarks.scale", "--folder", "space", *arguments)
    return run(*command, cwd=project, check=check, PYTHONPATH=str(ROOT))


@pytest.mark.slow
def test_it_measures_both_stages_at_each_size_and_leaves_only_the_table(project: Path):
    printed = benchmark(project, "--sizes", "3").stdout
    table = pd.read_csv(project / "benchmarks/results/scale.csv")
    assert tuple(table.columns) == scale.COLUMNS
    assert table["size"].tolist() == [1, 1, 3, 3]
    assert table["stage"].tolist() == ["preprocess", "train"] * 2
    # Of 1,437 training images 143 are for validation; batches of 256 leave the rest out.
    assert table["images"].tolist() == [1797, 5 * 256, 3 * 1797, 16 * 256]
    numbers = table.drop(columns=["stage"])
    assert (numbers > 0).all(axis=None)
    assert (table["peak_anonymous_mb"] < table["peak_resident_mb"]).all()
    assert (table[table["stage"] == "preprocess"]["peak_anonymous_mb"] < 300).all()
    for memory in table["peak_anonymous_mb"]:
        assert f"{memory:.1f}" in printed
    assert not list((project / "space").iterdir())


def test_the_repeated_files_hold_each_image_moved_and_its_label(project: Path):
    raw, size = project / RAW, 4
    for name, dimensions in ((TRAIN_IMAGES, 3), (TRAIN_LABELS, 1)):
        scale.write_repeated(raw / name, project / name, dimensions, size)
    images, moved = (
        np.concatenate(list(idx.read_blocks(folder / TRAIN_IMAGES, 3))) for folder in (raw, project)
    )
    labels, repeated = (
        np.concatenate(list(idx.read_blocks(folder / TRAIN_LABELS, 1))) for folder in (raw, project)
    )
    np.testing.assert_array_equal(repeated, np.tile(labels, size))
    originals, found = np.tile(images, (size, 1, 1)), np.zeros(len(moved), int)
    for y in range(-2, 3):
        for x in range(-2, 3):  # the margin of 4 pixels is empty: rolling is shifting
            same = (np.roll(originals, (y, x), axis=(1, 2)) == moved).all(axis=(1, 2))
            assert 0.02 < same.mean() < 0.06  # one in 25
            found += same
    assert (found == 1).all()


def test_too_little_room_is_refused_before_anything_is_written(project: Path):
    result = benchmark(project, "--sizes", "100000000", check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: space: 100000000 × 1,797 images take ")
    assert result.stderr.count("\n") == 1
    assert not list((project / "space").iterdir())


@pytest.mark.parametrize(
    ("missing", "arguments", "message"),
    [
        (RAW, (), "not found: run `dvc repro download` first"),
        ("space", (), "space: No such file or directory"),
        (None, ("--sizes", "0"), "--sizes: expected 1 or more, found 0"),
    ],
)
def test_what_it_cannot_start_with_is_refused(
    project: Path, missing: Path | str | None, arguments: tuple[str, ...], message: str
):
    if missing:
        shutil.rmtree(project / missing)
    result = benchmark(project, *arguments, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_stage_that_fails_ends_it_with_the_stages_message(project: Path):
    change_params(project, robustness__images=-1)
    result = benchmark(project, "--sizes", "1", check=False)
    assert result.returncode == 1
    assert "python -m stages.environment ended with 1: error: params.yaml" in result.stderr
    assert not list((project / "space").iterdir())
    assert not (project / "benchmarks").exists()
