"""The stage `train`: what it writes, that it learns, how it fails."""

import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, SMALL, change_params, contents, packaged, run, run_stage

from stages import train
from stages.base.stage import UserError
from stages.network.photometric import FAMILIES
from stages.network.runtime import keras

EPOCHS, BATCH = SMALL["train__epochs"], SMALL["train__batch_size"]
PROCESSED = Path("data/processed")
TRAINED = Path("models/trained")
MODEL = TRAINED / "seed-0.keras"
CURVES = Path("models/curves/seed-0.csv")
PLAIN = {f"train__photometric__{family.__name__}": 0 for family in FAMILIES}  # starts sooner


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stage has run; there are no test images."""
    folder = packaged(tmp_path_factory.mktemp("trained"))
    shutil.rmtree(folder / PROCESSED / "test")
    return folder


def refusal(folder: Path) -> str:
    """The message of the UserError, one line, with which training in `folder` ends."""
    with pytest.raises(UserError) as caught:
        run_stage(train.main, folder, "--seed", "0")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_curves_end_at_accuracy_and_smoothed_loss_of_the_saved_network(finished: Path):
    curves = pd.read_csv(finished / CURVES)
    columns = "epoch train_accuracy train_loss validation_accuracy validation_loss"
    assert list(curves) == columns.split()
    assert list(curves["epoch"]) == list(range(1, EPOCHS + 1))
    assert curves["train_accuracy"].between(0, 1).all()
    split = finished / PROCESSED / "validation"
    images, labels = np.load(split / "images.npy") / 255, np.load(split / "labels.npy")
    # Keras alone loads it: it is made of Keras' own layers.
    predicted = keras.saving.load_model(finished / MODEL).predict(images, verbose=0)
    smoothed = 0.9 * np.eye(10)[labels] + 0.1 / 10
    last = curves.iloc[-1]
    assert last["validation_accuracy"] == pytest.approx(
        (predicted.argmax(1) == labels).mean(), abs=1e-6
    )
    loss = -(smoothed * np.log(predicted)).sum(axis=1).mean()
    assert last["validation_loss"] == pytest.approx(loss, abs=1e-5)


@pytest.mark.slow
def test_it_learns_with_the_projects_own_settings(folder: Path):
    shutil.copy(ROOT / "params.yaml", folder)
    run_stage(train.main, folder, "--seed", "0")
    last = pd.read_csv(folder / CURVES).iloc[-1]
    assert last["validation_accuracy"] >= 0.95
    assert last["train_accuracy"] >= 0.9  # while it trained, on augmented images


def test_a_seed_that_is_not_in_params_is_refused(folder: Path):
    with pytest.raises(UserError, match=r"--seed: expected one of .*\[0\], found 5"):
        run_stage(train.main, folder, "--seed", "5")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train__augment__shift": 15}, "train.augment.shift: expected at most 14, .*found 15"),
        ({"train__network__crop": 11}, "train.network.crop: expected at most 10 .*found 11"),
    ],
)
def test_params_that_do_not_fit_the_data_are_refused(folder: Path, values, message):
    change_params(folder, **values)
    assert re.search(message, refusal(folder))


def test_with_patience_training_stops_and_the_best_epoch_is_kept(folder: Path):
    # At this rate the loss soon gets worse: the best epoch is not the last.
    change_params(folder, train__epochs=12, train__patience=2, train__learning_rate=1.0, **PLAIN)
    change_params(folder, train__warmup=0.9)
    for path in (folder / PROCESSED / "train").glob("*.npy"):
        np.save(path, np.load(path)[: 3 * BATCH])
    printed = run_stage(train.main, folder, "--seed", "0")
    losses = pd.read_csv(folder / CURVES)["validation_loss"]
    best = int(losses.idxmin())
    assert len(losses) == best + 3 < 12
    assert f"kept: epoch {best + 1}," in printed
    split = folder / PROCESSED / "validation"
    images, labels = np.load(split / "images.npy") / 255, np.load(split / "labels.npy")
    predicted = keras.saving.load_model(folder / MODEL).predict(images, verbose=0)
    smoothed = 0.9 * np.eye(10)[labels] + 0.1 / 10
    loss = -(smoothed * np.log(predicted)).sum(axis=1).mean()
    assert loss == pytest.approx(losses[best], abs=1e-4)


def test_patience_needs_validation_images(folder: Path):
    without_validation(folder)
    change_params(folder, train__patience=2)
    assert "train.patience: expected 0, since there are no validation images" in refusal(folder)


def without_validation(folder: Path) -> None:
    for name in ("images", "labels", "numbers"):
        path = folder / PROCESSED / f"validation/{name}.npy"
        np.save(path, np.load(path)[:0])


def test_a_loss_that_is_no_number_ends_training_and_leaves_the_earlier_network(folder):
    change_params(folder, train__learning_rate=1e30, **PLAIN)
    (folder / MODEL).write_bytes(b"an earlier model")
    message = refusal(folder)
    assert "epoch 1" in message  # not only when all is over
    assert "train.learning_rate" in message
    assert "train.muon_learning_rate" in message
    assert (folder / MODEL).read_bytes() == b"an earlier model"


def test_without_validation_images_a_last_step_that_ends_in_no_numbers_is_told(folder, monkeypatch):
    """A single step: its loss is still that of the initial weights, the curves have a row."""
    without_validation(folder)
    change_params(folder, train__learning_rate=1e30, train__epochs=1, train__warmup=0.0, **PLAIN)
    for path in (folder / PROCESSED / "train").glob("*.npy"):
        np.save(path, np.load(path)[:BATCH])
    (folder / MODEL).unlink()
    said = []
    monkeypatch.setattr("builtins.print", lambda *parts, **_: said.extend(parts))
    assert "train.learning_rate" in refusal(folder)
    assert re.search("epoch 1/1: accuracy", text := "\n".join(said))
    assert not re.search("val_|nan", text), "there are no validation numbers"
    assert not (folder / MODEL).exists()
    curves = pd.read_csv(folder / CURVES)
    assert list(curves.columns[curves.isna().all()]) == ["validation_accuracy", "validation_loss"]


def test_a_missing_or_damaged_array_is_refused_with_what_to_run_and_never_unpickled(folder: Path):
    class Intruder:
        def __reduce__(self):
            return os.mkdir, (str(folder / "trace"),)

    path = folder / PROCESSED / "train/images.npy"
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], np.array([Intruder()], object), None):
        path.unlink()
        if isinstance(damaged, bytes):
            path.write_bytes(damaged)
        elif damaged is not None:
            np.save(path, damaged)
        run = "not found: run `dvc repro`" if damaged is None else "run `dvc repro .*preprocess`"
        assert re.search(rf"train/images\.npy .*{run}", refusal(folder))
    assert not (folder / "trace").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores, and Linux to give a process but one of them",
)
def test_the_number_of_cores_changes_no_byte(folder: Path, tmp_path: Path):
    # The real model: small ones are not split between threads.
    shutil.copy(ROOT / "params.yaml", folder)
    change_params(folder, download__dataset="digits", train__epochs=1)
    cores = sorted(os.sched_getaffinity(0))
    outputs = []
    for count in (1, 2):
        copy = shutil.copytree(folder, tmp_path / str(count))
        os.sched_setaffinity(0, cores[:count])  # the child inherits it
        try:
            command = ("python", "-m", "stages.train", "--seed", "0")
            run(*command, cwd=copy, python=sys.executable, PYTHONPATH=str(ROOT))
        finally:
            os.sched_setaffinity(0, cores)
        outputs.append(contents(copy / TRAINED))
    assert outputs[0] == outputs[1]
