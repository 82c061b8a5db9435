"""Training that is interrupted goes on and ends with the same bytes; the bar of a terminal."""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import SMALL, change_params, packaged, run_stage

from stages import train
from stages.network.callbacks import Progress
from stages.network.runtime import keras

EPOCHS = SMALL["train__epochs"]
BACKUP = Path(".dvc/tmp/training/seed-0.npz")
MODELS = Path("models")
OUTPUTS = [MODELS / "trained/seed-0.keras", MODELS / "curves/seed-0.csv"]


def interrupted(folder: Path, name: str, stop: Callable, seed: int = 0) -> None:
    """Run the stage, with a method of Progress replaced by one that raises KeyboardInterrupt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, name, stop)
        with pytest.raises(KeyboardInterrupt):
            run_stage(train.main, folder, "--seed", str(seed))


def train_one_epoch(folder: Path) -> None:
    """Run the stage until its second epoch begins."""
    begin = Progress.on_epoch_begin

    def stop(self: Progress, epoch: int, logs: dict | None = None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt
        begin(self, epoch, logs)

    interrupted(folder, "on_epoch_begin", stop)


def begun(folder: Path, seed: int = 0) -> tuple[int, str]:
    """Stop a run in `folder` before it trains: epochs that it takes up, and its fingerprint."""
    restore, found = Progress.restore, []

    def stop(self: Progress, model: keras.Model) -> None:
        found.append((restore(self, model), self.key))
        raise KeyboardInterrupt

    interrupted(folder, "restore", stop, seed)
    return found[0]


def goes_on(folder: Path, seed: int = 0) -> bool:
    epochs, _ = begun(folder, seed)
    assert epochs in (0, 1)
    return epochs == 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def finished(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, interrupted when one epoch was finished; DVC has removed the outputs."""
    folder = shutil.copytree(undisturbed, tmp_path_factory.mktemp("interrupted") / "project")
    train_one_epoch(folder)
    shutil.rmtree(folder / MODELS)
    return folder


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(folder: Path, undisturbed: Path):
    for path in OUTPUTS:
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text("an earlier run's\n")
    printed = run_stage(train.main, folder, "--seed", "0")
    for path in OUTPUTS:
        assert (folder / path).read_bytes() == (undisturbed / path).read_bytes()
    assert not (folder / BACKUP).exists()
    # One line per epoch, and into a pipe no bar.
    limit, going_on, epoch = printed.splitlines()
    assert limit.startswith("oneDNN computes with ")
    assert going_on.startswith(f"going on after epoch 1/{EPOCHS}")
    assert epoch.startswith(f"epoch 2/{EPOCHS}: accuracy")
    assert not re.search(r"[\r\x1b]", printed)


@pytest.mark.slow
def test_a_run_that_failed_after_its_last_epoch_only_writes_its_outputs(folder, undisturbed):
    obstacle = folder / OUTPUTS[0] / "no file"
    obstacle.mkdir(parents=True)
    with pytest.raises(OSError, match=r"seed-0\.keras"):
        run_stage(train.main, folder, "--seed", "0")
    shutil.rmtree(folder / MODELS)
    printed = run_stage(train.main, folder, "--seed", "0")
    assert f"\ngoing on after epoch {EPOCHS}/{EPOCHS}" in printed
    assert "images/s" not in printed
    for path in OUTPUTS:
        assert (folder / path).read_bytes() == (undisturbed / path).read_bytes()


def flip_last_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


ARRAYS = [f"{split}/{name}" for split in ("train", "validation") for name in ("images", "labels")]
EDITS = [  # of files: other data, other settings, damaged backups
    *((f"data/processed/{name}.npy", flip_last_bit) for name in ARRAYS),
    ("params.yaml", lambda data: data.replace(b"label_smoothing: 0.1", b"label_smoothing: 0.2")),
    ("params.yaml", lambda data: data.replace(b"shift: 2", b"shift: 3")),
    (BACKUP, lambda _: b""),
    (BACKUP, lambda _: b"PK\x03\x04 no archive"),
    (BACKUP, lambda data: data[: len(data) // 2]),
]


@pytest.mark.parametrize(("name", "edit"), EDITS)
def test_a_run_on_other_data_or_with_a_damaged_backup_does_not_go_on(folder: Path, name, edit):
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(edit(before))
    assert (folder / name).read_bytes() != before
    assert not goes_on(folder)


def test_a_run_with_other_code_does_not_go_on(folder: Path, tmp_path: Path, monkeypatch):
    module = ModuleType("stages.network.extra")
    module.__file__ = str(tmp_path / "extra.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    Path(module.__file__).write_text("RATE = 1\n")
    _, key = begun(folder)
    assert begun(folder) == (0, key)
    Path(module.__file__).write_text("RATE = 2\n")
    assert begun(folder)[1] != key


@pytest.mark.slow
def test_a_run_with_another_tensorflow_or_another_seed_does_not_go_on(folder: Path, monkeypatch):
    change_params(folder, seeds=[0, 1])
    shutil.copy(folder / BACKUP, folder / BACKUP.with_name("seed-1.npz"))
    assert not goes_on(folder, seed=1)
    monkeypatch.setattr("stages.network.callbacks.tf.__version__", "0.1")
    assert not goes_on(folder)


def test_a_backup_is_never_unpickled(folder: Path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (folder / "executed",)

    with open(folder / BACKUP, "wb") as file:
        np.savez(file, np.array([Payload()], dtype=object))
    assert not goes_on(folder)
    assert not (folder / "executed").exists()


@pytest.mark.slow
def test_a_terminal_shows_a_bar(folder: Path, monkeypatch):
    termios = pytest.importorskip("termios")
    seen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["train", "--seed", "0"])
    with open(terminal, "w") as stderr, contextlib.redirect_stderr(stderr):
        train.main()
    shown = os.read(seen, 100_000).decode()
    os.close(seen)
    assert re.search(rf"epoch 2/{EPOCHS}: .*images/s", shown)
