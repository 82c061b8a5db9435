"""Training that is killed goes on where it was and ends with the bytes of an undisturbed run."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, change_params, record_environment, run_stage

from stages.dataset import digits
from stages import preprocess
from stages import train
from stages.network.progress import Progress

EPOCHS = 4
BACKUP = Path(".dvc/tmp/training/seed-0.npz")


def outputs(folder: Path) -> dict[str, bytes]:
    files = [path for name in ("models", "metrics", "plots") for path in (folder / name).rglob("*")]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.is_file()
    }


def train_in(folder: Path) -> str:
    """Run the stage in `folder`; what it printed."""
    return run_stage(train.main, folder, "--seed", "0")


def remove_outputs(folder: Path) -> None:
    """What DVC does before it runs the stage."""
    for name in ("models", "metrics", "plots"):
        shutil.rmtree(folder / name, ignore_errors=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(ROOT / "params.yaml", folder)
    change_params(
        folder,
        download__dataset="digits",
        train__epochs=EPOCHS,
        train__batch_size=128,
        train__network__filters=[4, 8, 8],
    )
    record_environment(folder)
    digits.write_digits(folder / "raw")
    preprocess.preprocess(folder / "raw", folder / "data/processed", 10, 0.1, seed=0)
    train_in(folder)
    return folder


@pytest.fixture(scope="module")
def interrupted(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, interrupted in the third epoch."""
    folder = tmp_path_factory.mktemp("interrupted") / "project"
    shutil.copytree(undisturbed, folder)
    remove_outputs(folder)
    begin = Progress.on_epoch_begin

    def interrupt(self: Progress, epoch: int, logs: dict | None = None) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "on_epoch_begin", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_in(folder)
    remove_outputs(folder)
    return folder


@pytest.fixture
def folder(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of `interrupted` to change and run in."""
    return shutil.copytree(interrupted, tmp_path / "project")


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(folder: Path, undisturbed: Path):
    printed = train_in(folder)
    assert printed.startswith(f"going on after epoch 2/{EPOCHS}")
    assert f"epoch 3/{EPOCHS}: loss" in printed
    assert outputs(folder) == outputs(undisturbed)
    assert not (folder / BACKUP).exists()


@pytest.mark.slow
def test_a_run_that_failed_after_its_last_epoch_only_writes_its_outputs(
    folder: Path, undisturbed: Path
):
    obstacle = folder / "models/seed-0.keras/no file"
    obstacle.mkdir(parents=True)
    with pytest.raises(OSError, match=r"seed-0\.keras"):
        train_in(folder)
    remove_outputs(folder)
    printed = train_in(folder)
    assert printed.startswith(f"going on after epoch {EPOCHS}/{EPOCHS}")
    assert "images/s" not in printed
    assert outputs(folder) == outputs(undisturbed)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, undisturbed: Path):
    folder = shutil.copytree(undisturbed, tmp_path / "project")
    remove_outputs(folder)
    command = [sys.executable, "-m", "stages.train", "--seed", "0"]
    options = {"cwd": folder, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "text": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as process:
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    remove_outputs(folder)
    again = subprocess.run(command, capture_output=True, check=True, **options)
    # The kill may have come before the second epoch's backup was written, or after the third's.
    assert re.match(rf"going on after epoch [123]/{EPOCHS}", again.stdout)
    assert outputs(folder) == outputs(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"train__learning_rate": 0.05},
        {"train__augment__shift": 1},
        {"preprocess__seed": 1},
    ],
    ids=str,
)
def test_another_run_does_not_go_on_from_there(folder: Path, change: dict):
    change_params(folder, **change)
    if "preprocess__seed" in change:
        preprocess.preprocess(folder / "raw", folder / "data/processed", 10, 0.1, seed=1)
    printed = train_in(folder)
    assert "going on" not in printed
    assert f"epoch 1/{EPOCHS}" in printed
    assert not (folder / BACKUP).exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"PK\x03\x04 no archive", None], ids=["bad", "half"])
def test_a_damaged_backup_is_left_aside(folder: Path, undisturbed: Path, damage: bytes | None):
    path = folder / BACKUP
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if damage is None else damage)
    assert "going on" not in train_in(folder)
    assert outputs(folder) == outputs(undisturbed)


@pytest.mark.slow
def test_a_backup_never_unpickles(folder: Path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (folder / "executed",))

    with open(folder / BACKUP, "wb") as file:
        np.savez(file, np.array([Payload()], dtype=object))
    assert "going on" not in train_in(folder)
    assert not (folder / "executed").exists()
