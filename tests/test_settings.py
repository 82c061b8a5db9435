"""Every key of params.yaml acts, and rightly: a key of which this is not shown fails."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from conftest import PARAMS, ROOT, change_params, leaves, packaged, run, run_stage

from stages import evaluate, package, preprocess, robustness, train
from stages.base.settings import Train
from stages.network.batches import training_batches
from stages.network.photometric import FAMILIES
from stages.network.runtime import keras, limit_processor, tf
from stages.report import pictures, style

IMAGES = 1332  # to train on: digits has 1,437, of which some 8 % are for validation


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small model was trained and packaged, on digits, as of seed 3, too."""
    folder = packaged(tmp_path_factory.mktemp("finished"), seeds=[0, 3])
    for name in ("packaged/seed-{}", "trained/seed-{}.keras", "curves/seed-{}.csv"):
        source, copy = (folder / "models" / name.format(seed) for seed in (0, 3))
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    return folder


@dataclass
class Fit:
    """What the stage passes to Keras' fit: the compiled model, the batches, the rest."""

    model: keras.Model
    batches: tf.data.Dataset
    settings: Train  # which the batches are made with
    arguments: dict
    limit: str  # of oneDNN
    threads: int

    def steps(self) -> int:
        return self.arguments["steps_per_epoch"] * self.arguments["epochs"]

    def first(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of the first batch."""
        return next(self.batches.as_numpy_iterator())

    def rates(self) -> np.ndarray:
        """The learning rate at each step and after the last."""
        optimizer = self.model.optimizer
        rates = []
        for step in range(self.steps() + 1):
            optimizer.iterations.assign(step)
            rates.append(float(optimizer.learning_rate))
        return np.array(rates)

    def seen(self) -> dict[str, object]:
        """By key: the value that is seen to act."""
        optimizer, steps, size = self.model.optimizer, self.steps(), len(self.first()[0])
        predicted = np.full((1, 10), 0.01)
        predicted[0, 0] = 0.91
        loss = float(self.model.compute_loss(y=np.eye(10)[:1], y_pred=predicted))
        kinds = [layer for layer in self.model.layers if isinstance(layer, keras.layers.Conv2D)]
        return {
            "train.epochs": steps / (IMAGES // size),
            "train.batch_size": size,
            "train.learning_rate": self.rates().max(),
            "train.muon_learning_rate": self.rates().max() * optimizer.muon_ratio,
            "train.momentum": optimizer.momentum,
            "train.warmup": self.rates().argmax() / steps,
            "train.weight_decay": optimizer.weight_decay,
            # Of the label's probability 0.9 of this part goes to the other classes.
            "train.label_smoothing": (loss + np.log(0.91)) / (0.9 * np.log(91)),
            "train.instructions": {"AVX512_CORE": "avx512", "AVX2": "avx2"}[self.limit],
            "train.threads": self.threads,
            "train.network.crop": 14 - self.model.get_layer("stem").output.shape[1],
            "train.network.filters": [layer.kernel.shape[-1] for layer in kinds],
            # What these do with an image: see the tests of batches.
            "train.augment.rotation": self.settings.augment.rotation,
            "train.photometric.full_until": self.settings.photometric.full_until,
        }


def fit_in(folder: Path, seed: int = 0) -> Fit:
    """Run the stage `train` up to the first step of training, which is not taken."""
    caught, threads, given = [], [], []

    def fit(model: keras.Model, batches, **arguments) -> None:
        limit = os.environ["ONEDNN_MAX_CPU_ISA"]
        caught.append(Fit(model, batches, *given, arguments, limit, *threads))

    def made(*arguments) -> tf.data.Dataset:
        given.append(arguments[3])
        return training_batches(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "training_batches", made)
        patch.setattr(keras.Model, "fit", fit)
        # TensorFlow takes another number only before anything is computed.
        patch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", threads.append)
        patch.setenv("ONEDNN_MAX_CPU_ISA", "")  # put back afterwards
        run_stage(train.main, folder, "--seed", str(seed))
    return caught[0]


OTHERS = {  # values unlike the usual ones; what they do is seen where they act
    "seeds": [3],
    "preprocess.validation_size": 0.25,
    "train.epochs": 3,
    "train.batch_size": 64,
    "train.learning_rate": 0.07,
    "train.muon_learning_rate": 0.3,
    "train.momentum": 0.5,
    "train.warmup": 0.6,
    "train.weight_decay": 0.01,
    "train.label_smoothing": 0.4,
    "train.instructions": "avx2",
    "train.threads": 1,
    "train.network.crop": 0,
    "train.network.filters": [3, 4, 5, 6],
    "train.augment.rotation": 7,
    "train.photometric.full_until": 0.9,
    "package.average_shift": 2,
    "evaluate.samples": 2,
    "evaluate.misclassified": 7,
    "evaluate.seed": 5,
    "robustness.images": 30,
    "robustness.seed": 6,
}


def seen(folder: Path) -> dict[str, object]:
    """By key of OTHERS: the value that is seen to act."""
    fit, told, packaged = fit_in(folder, seed=3).seen(), {}, []
    run_stage(preprocess.main, folder)

    def stop(model: keras.Model, path: Path) -> None:
        """Files to use take seconds."""
        packaged.append(model)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package.saved, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run_stage(package.main, folder, "--seed", "3")

    def overhear(patch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
        """Note what a function is told besides its data."""
        function = getattr(module, name)
        patch.setattr(module, name, lambda *a: told.update({name: a[1:]}) or function(*a))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("sample_predictions", "misclassified"):
            overhear(patch, pictures, name)
        overhear(patch, robustness, "corrupt")
        # What pictures look like does not matter here, and takes seconds.
        patch.setattr(style, "chart", lambda title, _, note: style.page(title, (0, 0), note)[0])
        for stage in (evaluate, robustness):
            run_stage(stage.main, folder)
    validation = np.load(folder / "data/processed/validation/labels.npy")
    return fit | {
        "seeds": [3],
        # Which side an image is on is a matter of chance, so the share is not exact.
        "preprocess.validation_size": round(20 * len(validation) / 1437) / 20,
        "package.average_shift": packaged[0].get_layer("margin").padding[0][0],
        "evaluate.samples": told["sample_predictions"][-2],
        "evaluate.misclassified": told["misclassified"][-1],
        "evaluate.seed": told["sample_predictions"][-1],
        "robustness.images": pd.read_csv(folder / "metrics/corruptions.csv")["images"][0],
        "robustness.seed": told["corrupt"][-1],
    }


# Seen to act in the tests of preprocess, folders, splits, training, augmentation and batches.
ELSEWHERE = {
    "download": "dataset size colour fit unreadable",
    "preprocess": "test_size seed",
    "train": "patience class_weights least_steps",
    "train.augment": "shift zoom shear flip",
    "train.photometric": " ".join(["at_end", *(family.__name__ for family in FAMILIES)]),
}
ELSEWHERE = [f"{section}.{key}" for section, keys in ELSEWHERE.items() for key in keys.split()]


@pytest.fixture(scope="module")
def usual(finished: Path) -> Fit:
    """What is passed to fit with the usual values."""
    return fit_in(finished)


def test_each_key_is_in_one_of_the_tables():
    assert sorted([*OTHERS, *ELSEWHERE]) == sorted(leaves(PARAMS)), (
        "say how a new key is seen to act"
    )


def test_each_value_is_seen_where_it_acts(folder: Path):
    for key, value in OTHERS.items():
        change_params(folder, **{key: value})
    found = seen(folder)
    assert found.keys() == OTHERS.keys()
    for key, value in OTHERS.items():
        few = key == "preprocess.validation_size"  # each image by itself: about so many
        expected = (
            value if isinstance(value, str) else pytest.approx(value, rel=0.1 if few else 1e-3)
        )
        assert found[key] == expected, key


@pytest.mark.slow
def test_the_limit_of_instructions_reaches_onednn_and_the_network(folder: Path):
    if not limit_processor("avx512", 2).startswith("AVX-512"):
        pytest.skip("this processor has no AVX-512")
    model = folder / "models/trained/seed-0.keras"
    before = model.read_bytes()
    change_params(folder, train__instructions="avx2")
    command = ("python", "-m", "stages.train", "--seed", "0")
    printed = run(*command, cwd=folder, PYTHONPATH=str(ROOT), ONEDNN_VERBOSE="1").stdout
    assert printed.startswith("oneDNN computes with AVX2 as train.instructions says, threads: 2\n")
    assert "cpu,isa:Intel AVX2\n" in printed  # what oneDNN says itself
    assert model.read_bytes() != before


@pytest.mark.slow
def test_another_number_of_threads_reaches_tensorflow_and_auto_says_what_it_means(folder: Path):
    command = ("python", "-m", "stages.train", "--seed", "0")
    for threads, said in ((1, "threads: 1\n"), ("auto", "(auto: on another number of cores")):
        change_params(folder, train__threads=threads)
        assert said in run(*command, cwd=folder, PYTHONPATH=str(ROOT)).stdout


def test_the_rate_rises_in_a_line_then_falls_along_a_cosine(usual: Fit):
    rise = 0.1 * np.arange(4) / 4
    fall = 0.1 * (1 + np.cos(np.pi * np.arange(17) / 16)) / 2
    np.testing.assert_allclose(usual.rates(), [*rise, *fall], atol=1e-7)


@pytest.mark.parametrize(("steps", "warmup", "peak"), [(10, 0.0, 0), (1, 0.0, 0), (4, 0.99, 4)])
def test_the_rate_peaks_where_the_warm_up_ends(steps: int, warmup: float, peak: int):
    schedule = train.learning_rates(Train.model_construct(warmup=warmup, learning_rate=0.3), steps)
    rates = [float(schedule(step)) for step in range(steps + 1)]
    assert np.argmax(rates) == peak
    assert rates[peak] == pytest.approx(0.3)


def test_the_seed_decides_weights_and_order(usual: Fit, finished: Path):
    one, other = usual, fit_in(finished, seed=3)
    assert not np.array_equal(one.model.get_weights()[0], other.model.get_weights()[0])
    assert not np.array_equal(one.first()[1], other.first()[1])


def test_fit_takes_all_batches_and_the_validation_images(usual: Fit, finished: Path):
    arguments = usual.arguments
    assert usual.steps() == len(list(usual.batches.as_numpy_iterator()))
    assert arguments["shuffle"] is False
    split = finished / "data/processed/validation"
    images, labels = np.load(split / "images.npy"), np.load(split / "labels.npy")
    np.testing.assert_array_equal(arguments["validation_data"][0], images / np.float32(255))
    np.testing.assert_array_equal(arguments["validation_data"][1], np.eye(10)[labels])
