"""Every key of params.yaml acts, and rightly: generated from the file's own keys.

A key without a check fails, and so does one whose other value changes nothing.
"""

import functools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import PARAMS, ROOT, change_params, contents, leaves, packaged, run, run_stage

from stages import evaluate, package, preprocess, robustness, train
from stages.network.runtime import keras, limit_instructions
from stages.network.settings import Train

EPOCHS, BATCH = 2, 128
STEPS = 1322 // BATCH * EPOCHS  # digits has 1,437 training images, 8 % of them for validation


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two small networks were trained and packaged, on digits."""
    folder = tmp_path_factory.mktemp("finished")
    few = {"robustness__images": 20, "evaluate__samples": 1, "evaluate__misclassified": 5}
    return packaged(folder, train__batch_size=BATCH, **few)


@dataclass
class Fit:
    """What the stage passes to Keras' fit: the compiled network, the batches, the rest."""

    model: keras.Model
    batches: list[tuple[np.ndarray, np.ndarray]]
    arguments: dict
    limit: str  # of oneDNN

    def rates(self) -> np.ndarray:
        """The learning rate at each step and after the last."""
        optimizer = self.model.optimizer
        rates = []
        for step in range(len(self.batches) + 1):
            optimizer.iterations.assign(step)
            rates.append(float(optimizer.learning_rate))
        return np.array(rates)

    def loss(self) -> float:
        """Of an image of class 0 to which the network gives a probability of 0.91."""
        actual, predicted = np.eye(10)[:1], np.full((1, 10), 0.01)
        predicted[0, 0] = 0.91
        return float(self.model.compute_loss(y=actual, y_pred=predicted))

    def filters(self) -> list[int]:
        kinds = [layer for layer in self.model.layers if isinstance(layer, keras.layers.Conv2D)]
        return [layer.kernel.shape[-1] for layer in kinds]

    def brightness(self) -> float:
        """Of all batches: whatever the transformation, it changes the sum in its last digits."""
        return float(np.sum([images.sum(dtype=np.float64) for images, _ in self.batches]))


def fit_in(folder: Path, seed: int = 0) -> Fit:
    """Run the stage `train` up to the first step of training, which is not taken."""
    caught = []

    def fit(model: keras.Model, batches, **arguments) -> None:
        limit = os.environ["ONEDNN_MAX_CPU_ISA"]
        caught.append(Fit(model, list(batches.as_numpy_iterator()), arguments, limit))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", fit)
        patch.setenv("ONEDNN_MAX_CPU_ISA", "")  # put back afterwards
        run_stage(train.main, folder, "--seed", str(seed))
    return caught[0]


def outputs(stage: Callable[[], None]) -> Callable[[Path], dict[str, bytes]]:
    """A function that runs a stage in a folder and gives all files that are there afterwards."""

    def run(folder: Path) -> dict[str, bytes]:
        run_stage(stage, folder)
        return contents(folder)

    return run


def file(name: str) -> Callable[[dict[str, bytes]], bytes]:
    return lambda found: found[name]


def networks(found: dict[str, bytes]) -> list[str]:
    return list(json.loads(found["models/packaged/package.json"]))


def validation_images(found: dict[str, bytes]) -> int:
    return len(found["data/processed/validation/labels.npy"]) - 128  # numpy's header


def dataset(found: dict[str, bytes]) -> str:
    return json.loads(found["metrics/details/scores.json"])["dataset"]


def corrupted(found: dict[str, bytes]) -> int:
    return int(found["metrics/corruptions.csv"].splitlines()[1].split(b",")[5])


EVALUATE, ROBUSTNESS = outputs(evaluate.main), outputs(robustness.main)
PREPROCESS, PACKAGE = outputs(preprocess.main), outputs(package.main)
PICTURE = "plots/evaluate/{}.png".format
# By key: what is run, another value, what is looked at afterwards, and what must be seen there with
# the usual values and with all the other ones of that run at once.
EXACT = {
    "seeds": (PACKAGE, [3], networks, ["0", "3"], ["3"]),
    "download.dataset": (EVALUATE, "kmnist", dataset, "digits", "kmnist"),
    "preprocess.validation_size": (PREPROCESS, 200, validation_images, 115, 200),
    "train.epochs": (fit_in, 3, lambda fit: len(fit.batches), STEPS, 3 * (1322 // 64)),
    "train.batch_size": (fit_in, 64, lambda fit: len(fit.batches[0][1]), BATCH, 64),
    "train.learning_rate": (fit_in, 0.07, lambda fit: fit.rates().max(), 0.1, 0.07),
    "train.muon_learning_rate": (
        *(fit_in, 0.3, lambda fit: fit.rates().max() * fit.model.optimizer.muon_ratio),
        *(0.12, 0.3),
    ),
    "train.momentum": (fit_in, 0.5, lambda fit: fit.model.optimizer.momentum, 0.9, 0.5),
    "train.warmup": (fit_in, 0.6, lambda fit: fit.rates().argmax(), 0.2 * STEPS, 36),
    "train.weight_decay": (
        *(fit_in, 0.01, lambda fit: fit.model.optimizer.weight_decay),
        *(5e-4, 0.01),
    ),
    "train.label_smoothing": (
        *(fit_in, 0.4, Fit.loss),
        -0.91 * np.log(0.91) - 0.09 * np.log(0.01),  # 0.9 and a tenth of 0.1 for the label
        -0.64 * np.log(0.91) - 0.36 * np.log(0.01),
    ),
    "train.instructions": (fit_in, "avx2", lambda fit: fit.limit, "AVX512_CORE", "AVX2"),
    "train.network.crop": (
        *(fit_in, 0, lambda fit: fit.model.get_layer("stem").output.shape[1]),
        *(12, 14),
    ),
    "train.network.filters": (fit_in, [3, 4, 5, 6], Fit.filters, [4, 8, 8], [3, 4, 5, 6]),
    "robustness.images": (ROBUSTNESS, 30, corrupted, 20, 30),
}
WAYS = [f"train.augment.{name}" for name in PARAMS["train"]["augment"]]
WAYS += [f"train.photometric.{name}" for name in PARAMS["train"]["photometric"]]
# Where it is only seen that something changes, and nothing else is changed.
CHANGES = dict.fromkeys(WAYS, (fit_in, 0, Fit.brightness)) | {
    "train.photometric.full_until": (fit_in, 0.9, Fit.brightness),
    "train.photometric.at_end": (fit_in, 1, Fit.brightness),
    "preprocess.seed": (PREPROCESS, 1, file("data/processed/validation/images.npy")),
    "package.average_shift": (PACKAGE, 2, file("models/packaged/seed-3.tflite")),
    "evaluate.samples": (EVALUATE, 2, file(PICTURE("predictions"))),
    "evaluate.misclassified": (EVALUATE, 2, file(PICTURE("misclassified"))),
    "evaluate.seed": (EVALUATE, 1, file(PICTURE("predictions"))),
    "robustness.seed": (ROBUSTNESS, 1, file("metrics/corruptions.csv")),
}


@pytest.fixture(scope="module")
def usual(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """What a run gives with the usual values."""

    @functools.cache
    def of(run: Callable):
        if run is PACKAGE:
            return contents(finished)
        return run(shutil.copytree(finished, tmp_path_factory.mktemp("usual") / "folder"))

    return of


def set_param(folder: Path, key: str, value: object) -> None:
    change_params(folder, **{key.replace(".", "__"): value})


def test_each_key_is_in_one_of_the_tables():
    assert sorted([*EXACT, *CHANGES]) == sorted(leaves(PARAMS)), "say how a new key is seen to act"


@pytest.mark.parametrize("run", [PREPROCESS, fit_in, PACKAGE, EVALUATE, ROBUSTNESS])
def test_each_param_has_the_effect_of_its_value(run: Callable, usual: Callable, folder: Path):
    rows = {key: row for key, (its, *row) in EXACT.items() if its is run}
    for key, (value, *_) in rows.items():
        set_param(folder, key, value)
    others = run(folder)
    for key, (_, look, before, after) in rows.items():
        assert look(usual(run)) == pytest.approx(before), key
        assert look(others) == pytest.approx(after), key


@pytest.mark.parametrize("key", CHANGES)
def test_each_param_changes_something(key: str, usual: Callable, folder: Path):
    run, value, look = CHANGES[key]
    set_param(folder, key, value)
    if run is PACKAGE:
        set_param(folder, "seeds", [3])  # one network is quicker
    assert look(usual(run)) != look(run(folder))


@pytest.mark.slow
def test_the_limit_of_instructions_reaches_onednn_and_the_network(folder: Path):
    if limit_instructions("avx512") != "AVX-512":
        pytest.skip("this processor has no AVX-512")
    network = folder / "models/trained/seed-0/network.keras"
    before = network.read_bytes()
    change_params(folder, train__instructions="avx2")
    command = ("python", "-m", "stages.train", "--seed", "0")
    printed = run(*command, cwd=folder, PYTHONPATH=str(ROOT), ONEDNN_VERBOSE="1").stdout
    assert printed.startswith("oneDNN computes with AVX2, as train.instructions says\n")
    assert "cpu,isa:Intel AVX2\n" in printed  # what oneDNN says itself
    assert network.read_bytes() != before


def test_the_rate_rises_in_a_line_then_falls_along_a_cosine(usual: Callable):
    rise = 0.1 * np.arange(4) / 4
    fall = 0.1 * (1 + np.cos(np.pi * np.arange(17) / 16)) / 2
    np.testing.assert_allclose(usual(fit_in).rates(), [*rise, *fall], atol=1e-7)


@pytest.mark.parametrize(("steps", "warmup", "peak"), [(10, 0.0, 0), (1, 0.0, 0), (4, 0.99, 4)])
def test_the_rate_peaks_where_the_warm_up_ends(steps: int, warmup: float, peak: int):
    schedule = train.learning_rates(Train.model_construct(warmup=warmup, learning_rate=0.3), steps)
    rates = [float(schedule(step)) for step in range(steps + 1)]
    assert np.argmax(rates) == peak
    assert rates[peak] == pytest.approx(0.3)


def test_the_seed_decides_weights_and_order(usual: Callable, folder: Path):
    one, other = usual(fit_in), fit_in(folder, seed=3)
    assert not np.array_equal(one.model.get_weights()[0], other.model.get_weights()[0])
    assert not np.array_equal(one.batches[0][1], other.batches[0][1])


def test_fit_takes_all_batches_and_the_validation_images(usual: Callable, finished: Path):
    arguments = usual(fit_in).arguments
    assert arguments["steps_per_epoch"] * arguments["epochs"] == len(usual(fit_in).batches)
    assert arguments["shuffle"] is False
    split = finished / "data/processed/validation"
    images, labels = np.load(split / "images.npy"), np.load(split / "labels.npy")
    np.testing.assert_array_equal(arguments["validation_data"][0], images)
    np.testing.assert_array_equal(arguments["validation_data"][1], np.eye(10)[labels])
