"""The stage `train`, run by its `main` on `digits`: what it writes, that a seed fixes every byte of
it, that it learns, what it shows meanwhile, and how it fails.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, change_params, record_environment, run_stage

from stages.dataset import digits
from stages import preprocess
from stages import train
from stages.base.stage import UserError
from stages.network.runtime import keras

EPOCHS, BATCH = 2, 128
TINY = {
    "train__epochs": EPOCHS,
    "train__batch_size": BATCH,
    "train__network__filters": [4, 8, 8],
}
PROCESSED = Path("data/processed")
CURVES = ("train/accuracy", "train/loss", "validation/accuracy", "validation/loss")


@dataclass
class Run:
    """A folder in which the stage has run, and what it printed there."""

    folder: Path
    printed: str

    def written(self) -> dict[str, bytes]:
        """All outputs by path."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        outputs = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in files}
        return {
            path: data
            for path, data in outputs.items()
            if not path.startswith("data/") and path not in ("params.yaml", "requirements.txt")
        }

    def curve(self, seed: int, name: str) -> pd.DataFrame:
        path = self.folder / f"plots/training/seed-{seed}/plots/metrics/{name}.tsv"
        return pd.read_csv(path, sep="\t")

    def metrics(self, seed: int) -> dict[str, dict[str, float]]:
        return json.loads((self.folder / f"metrics/train/seed-{seed}.json").read_text())

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        folder = self.folder / PROCESSED
        return np.load(folder / f"{name}_images.npy"), np.load(folder / f"{name}_labels.npy")


def run(folder: Path, seed: int) -> Run:
    """Train in `folder`, the output going to no terminal."""
    return Run(folder, run_stage(train.main, folder, "--seed", str(seed)))


def prepare(folder: Path, validation_size: int | float = 0.1) -> Path:
    """The arrays of `digits` but for the test images, and params.yaml with tiny settings."""
    shutil.copy(ROOT / "params.yaml", folder)
    change_params(folder, download__dataset="digits", **TINY)
    record_environment(folder)
    digits.write_digits(folder / "raw")
    preprocess.preprocess(folder / "raw", folder / PROCESSED, 10, validation_size, seed=0)
    shutil.rmtree(folder / "raw")
    for path in (folder / PROCESSED).glob("test_*"):
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of `prepared` to change and run in."""
    return shutil.copytree(prepared, tmp_path / "folder")


@pytest.fixture(scope="module")
def first(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("first") / "folder")
    return run(folder, seed=0)


def refusal(folder: Path, seed: int = 0) -> str:
    """The message of the UserError, one line, with which training in `folder` ends."""
    with pytest.raises(UserError) as caught:
        run(folder, seed)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_it_writes_the_network_its_metrics_and_its_curves(first: Run):
    assert set(first.written()) == {
        "models/seed-0.keras",
        "metrics/train/seed-0.json",
        "plots/training/seed-0/metrics.json",
        *(f"plots/training/seed-0/plots/metrics/{name}.tsv" for name in CURVES),
    }


def test_it_needs_no_test_images(first: Run):
    assert sorted(path.name for path in (first.folder / PROCESSED).iterdir()) == [
        "train_images.npy",
        "train_labels.npy",
        "validation_images.npy",
        "validation_labels.npy",
    ]
    assert "models/seed-0.keras" in first.written()


def test_metrics_are_those_of_the_saved_network(first: Run):
    model = keras.saving.load_model(first.folder / "models/seed-0.keras")
    metrics = first.metrics(seed=0)
    assert metrics.pop("temperature") == pytest.approx(
        1 / model.get_layer("temperature").scale, abs=1e-6
    )
    assert set(metrics) == {"train", "validation"}
    for name, values in metrics.items():
        images, labels = first.split(name)
        probabilities = model.predict(images, verbose=0).astype(np.float64)
        right = [row.argmax() == label for row, label in zip(probabilities, labels, strict=True)]
        losses = [-np.log(row[label]) for row, label in zip(probabilities, labels, strict=True)]
        assert values == {
            "accuracy": pytest.approx(np.mean(right), abs=1e-6),
            "loss": pytest.approx(np.mean(losses), abs=1e-5),
        }
        assert values["accuracy"] > 0.2  # it is no longer guessing


def test_no_other_temperature_is_better_on_validation(first: Run):
    model = keras.saving.load_model(first.folder / "models/seed-0.keras")
    images, labels = first.split("validation")
    averaged = keras.Model(model.inputs, model.get_layer("mean_logits").output)
    logits = averaged.predict(images, verbose=0).astype(np.float64)
    value = first.metrics(seed=0)["temperature"]

    def loss(temperature: float) -> float:
        weights = np.exp(logits / temperature)
        return -np.log(weights[range(len(labels)), labels] / weights.sum(axis=1)).mean()

    assert loss(value) < min(loss(0.8 * value), loss(1.2 * value))


@pytest.mark.parametrize("name", CURVES)
def test_curves_have_one_row_per_epoch(first: Run, name: str):
    curve = first.curve(0, name)
    quantity = name.split("/")[1]
    assert list(curve.columns) == ["step", quantity]
    assert list(curve["step"]) == list(range(EPOCHS))
    assert (curve[quantity] > 0).all()
    assert quantity == "loss" or (curve[quantity] <= 1).all()


def test_the_validation_curve_ends_at_the_accuracy_of_a_network_of_one_view(first: Run, folder):
    change_params(folder, train__average_shift=0)
    plain = run(folder, seed=0)
    last = plain.curve(0, "validation/accuracy")["accuracy"].iloc[-1]
    assert last == pytest.approx(plain.metrics(0)["validation"]["accuracy"], abs=2e-6)
    # The views change what is predicted, not how it is trained.
    name = "plots/training/seed-0/plots/metrics/validation/loss.tsv"
    assert plain.written()[name] == first.written()[name]
    assert plain.metrics(0) != first.metrics(0)


def test_the_averaged_network_has_the_logits_of_five_views(first: Run, folder: Path):
    change_params(folder, train__average_shift=0)
    run(folder, seed=0)
    images, _ = first.split("validation")
    logits = {}
    for path, layer in ((folder, "classifier"), (first.folder, "mean_logits")):
        model = keras.saving.load_model(path / "models/seed-0.keras")
        logits[layer] = keras.Model(model.inputs, model.get_layer(layer).output)
    views = [images, *(np.roll(images, by, axis) for by in (-1, 1) for axis in (1, 2))]
    for view in views:  # what rolls in is margin: digits' own scans don't reach so far
        assert not view[:, [0, -1]].any()
        assert not view[:, :, [0, -1]].any()
    expected = np.mean([logits["classifier"].predict(view, verbose=0) for view in views], axis=0)
    found = logits["mean_logits"].predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_it_prints_one_line_per_epoch_and_no_bar_into_a_pipe(first: Run):
    assert "\r" not in first.printed
    assert "\x1b" not in first.printed
    *epochs, train_line, validation_line, temperature_line = first.printed.splitlines()
    assert len(epochs) == EPOCHS
    for number, line in enumerate(epochs):
        found = re.fullmatch(
            r"epoch (\d+)/(\d+): loss (\d+\.\d+), accuracy (\d+\.\d+)%, "
            r"validation accuracy (\d+\.\d+)%, ([\d,]+) images/s",
            line,
        )
        assert found, line
        assert found[1] == str(number + 1)
        assert found[2] == str(EPOCHS)
        for text, name, factor, digits_ in (
            (found[3], "train/loss", 1, 4),
            (found[4], "train/accuracy", 100, 2),
            (found[5], "validation/accuracy", 100, 2),
        ):
            value = first.curve(0, name)[name.split("/")[1]][number]
            assert float(text) == pytest.approx(factor * value, abs=10**-digits_)
        assert int(found[6].replace(",", "")) > 0
    metrics = first.metrics(0)
    for line, split in ((train_line, "train"), (validation_line, "validation")):
        found = re.match(rf"{split}: accuracy (\d+\.\d+)%, loss \d+\.\d+$", line)
        assert float(found[1]) == pytest.approx(100 * metrics[split]["accuracy"], abs=0.01)


def test_the_same_seed_writes_the_same_bytes_over_an_earlier_run(first: Run, folder: Path):
    shutil.copytree(first.folder / "plots", folder / "plots")  # must not be added to
    (folder / "plots/training/seed-0/plots/metrics/train/speed.tsv").write_text("step\tspeed\n")
    assert run(folder, seed=0).written() == first.written()


def test_another_seed_gives_another_network_beside_the_first(first: Run, folder: Path):
    shutil.copytree(first.folder / "models", folder / "models")
    second = run(folder, seed=1)
    assert second.written()["models/seed-0.keras"] == first.written()["models/seed-0.keras"]
    one, other = (
        keras.saving.load_model(folder / f"models/seed-{seed}.keras").get_weights()
        for seed in (0, 1)
    )
    for mine, theirs in zip(one, other, strict=True):
        assert mine.shape == theirs.shape
        assert not np.array_equal(mine, theirs)


@pytest.mark.slow
def test_another_seed_gives_another_order_to_the_same_initial_weights(
    first: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    set_seed = keras.utils.set_random_seed
    monkeypatch.setattr(keras.utils, "set_random_seed", lambda seed: set_seed(0))
    second = run(folder, seed=1)
    assert second.written()["models/seed-1.keras"] != first.written()["models/seed-0.keras"]


@pytest.mark.slow
def test_it_learns_with_the_projects_own_settings(folder: Path):
    shutil.copy(ROOT / "params.yaml", folder)
    metrics = run(folder, seed=0).metrics(0)
    assert metrics["validation"]["accuracy"] >= 0.95
    assert metrics["train"]["accuracy"] >= 0.95


@pytest.mark.slow
def test_no_validation_images_no_validation_numbers(tmp_path: Path):
    result = run(prepare(tmp_path, validation_size=0), seed=0)
    metrics = result.metrics(0)
    assert set(metrics) == {"train", "temperature"}
    assert metrics["temperature"] == 1
    assert {path for path in result.written() if path.endswith(".tsv")} == {
        "plots/training/seed-0/plots/metrics/train/accuracy.tsv",
        "plots/training/seed-0/plots/metrics/train/loss.tsv",
    }
    assert "validation" not in result.printed
    assert "nan" not in result.printed
    assert len(re.findall(r"^epoch ", result.printed, re.MULTILINE)) == EPOCHS


@pytest.mark.parametrize("last", [False, True], ids=["during training", "by the last step"])
def test_a_loss_that_is_no_number_ends_training_and_leaves_the_earlier_network(
    folder: Path, last: bool
):
    change_params(folder, train__learning_rate=1e30)
    if last:  # a single step: its loss is still that of the initial weights
        change_params(folder, train__epochs=1, train__warmup=0.0)
        for path in (folder / PROCESSED).glob("train_*.npy"):
            np.save(path, np.load(path)[:BATCH])
    model = folder / "models/seed-0.keras"
    model.parent.mkdir()
    model.write_bytes(b"an earlier network")
    message = refusal(folder)
    assert last or "epoch 1" in message  # not only when all is over
    assert "train.learning_rate" in message
    assert "train.muon_learning_rate" in message
    assert [path.name for path in model.parent.iterdir()] == [model.name]
    assert model.read_bytes() == b"an earlier network"
    assert not (folder / "metrics/train/seed-0.json").exists()


def test_a_batch_larger_than_the_training_set_is_refused(folder: Path):
    count = len(Run(folder, "").split("train")[1])
    change_params(folder, train__batch_size=count + 1)
    message = refusal(folder)
    assert "train.batch_size" in message
    assert str(count) in message
    assert str(count + 1) in message


@pytest.mark.parametrize(
    "name",
    ["train_images", "train_labels", "validation_images", "validation_labels"],
)
def test_a_missing_array_is_refused_with_what_to_run(folder: Path, name: str):
    (folder / PROCESSED / f"{name}.npy").unlink()
    message = refusal(folder)
    assert f"{name}.npy" in message
    assert "dvc repro preprocess" in message


@pytest.mark.parametrize("name", ["train_images", "validation_labels"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:60],
        lambda data: data[:-1],
        lambda data: b"not an array\n" * 20,
        lambda data: data.replace(b"'shape'", b"'shave'"),
        lambda data: data.replace(b"{", b"(", 1),
        lambda data: b"PK\x03\x04" + data[4:],
    ],
    ids=["empty", "half a header", "one byte short", "text", "key", "bracket", "magic"],
)
def test_a_damaged_array_is_refused_with_what_to_run(folder: Path, name: str, damage):
    path = folder / PROCESSED / f"{name}.npy"
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(folder)
    assert f"{name}.npy" in message
    assert "dvc repro preprocess" in message


@pytest.mark.parametrize("split", ["train", "validation"])
def test_images_and_labels_that_do_not_belong_together_are_refused(folder: Path, split: str):
    path = folder / PROCESSED / f"{split}_labels.npy"
    np.save(path, np.load(path)[:-1])
    message = refusal(folder)
    assert f"{split}_labels.npy" in message
    assert "preprocess" in message


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_refused(folder: Path, seed: int):
    assert refusal(folder, seed) == f"--seed: expected 0 to 2147483647, found {seed}"


@pytest.mark.parametrize("arguments", [[], ["--seed", "x"], ["--seed", "0", "--epochs", "3"]])
def test_wrong_arguments_show_the_usage(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    with pytest.raises(SystemExit) as caught:
        train.main()
    assert caught.value.code == 2
    assert "--seed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores, and Linux to give a process but one of them",
)
def test_the_number_of_cores_changes_no_byte(prepared: Path, tmp_path: Path):
    cores = sorted(os.sched_getaffinity(0))
    written = []
    for count in (1, 2):
        folder = shutil.copytree(prepared, tmp_path / str(count))
        shutil.copy(ROOT / "params.yaml", folder)  # the real network: small ones are not split
        change_params(folder, download__dataset="digits", train__epochs=1)
        os.sched_setaffinity(0, cores[:count])  # the child inherits it
        try:
            subprocess.run(
                [sys.executable, "-m", "stages.train", "--seed", "0"],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                check=True,
            )
        finally:
            os.sched_setaffinity(0, cores)
        written.append(Run(folder, "").written())
    assert written[0] == written[1]
