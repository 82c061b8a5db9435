"""Predictions of packaged models: LiteRT files, run without TensorFlow."""

import json
import shutil
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from stages.base.data import DatasetInfo, scaled
from stages.base.quiet import silent_stderr
from stages.base.stage import UserError
from stages.prediction import rejection
from stages.prediction.calibration import fit_temperature, mean_prediction, softmax

PACKAGED = Path("models/packaged")  # a folder per seed
BATCH = 200  # images at a time: enough to keep the cores busy
THREADS = 2  # the result does not depend on it


def folder_of(seed: int) -> Path:
    """Where `package` puts what it makes of the model of that seed."""
    return PACKAGED / f"seed-{seed}"


def remove_others(seeds: list[int]) -> None:
    """Remove what was packaged of seeds that have left the list: DVC leaves it where it is.

    Stages that depend on a folder of all seeds would see it as a change, and so would Git. What DVC
    keeps comes back from its cache with the seed.
    """
    folders = "models/packaged", "models/curves", "metrics/package", "metrics/exports"
    for path in (path for folder in folders for path in Path(folder).glob("seed-*")):
        if path.name.partition(".")[0] not in {f"seed-{seed}" for seed in seeds}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Predictor:
    """The packaged model of one seed.

    >>> probabilities, _ = Predictor(0)(data.load_split("test").images[:10])

    Args:
        seed: one of those in params.yaml.

    Attributes:
        info: of the dataset that it was trained on.
        temperature: of its probabilities.
        held: what it predicts of held-out images, see package.py: logits, labels, likeness; and the
            centres for the likeness of others.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(self, seed: int):
        folder = folder_of(seed)
        path = folder / "model.tflite"
        try:
            facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            self.info = DatasetInfo.model_validate(facts["dataset"])
            self.temperature: float = facts["temperature"]
            with np.load(folder / "held.npz", allow_pickle=False) as file:
                self.held = {name: file[name] for name in file.files}
            with silent_stderr():
                self.interpreter = Interpreter(str(path), num_threads=THREADS)
                self.interpreter.allocate_tensors()
                self.runner = self.interpreter.get_signature_runner("predict")
        except (OSError, ValueError, KeyError, RuntimeError, BadZipFile) as error:
            raise UserError(
                f"{path}: no model that can be loaded ({error}): run `dvc repro package`"
            ) from None

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict the classes of images.

        Args:
            images: uint8, or float32 in [0, 1], shape (N, height, width, channels), N at least 1.

        Returns:
            Probabilities and logits (before the temperature), float32, shape (N, classes) each.
        """
        outputs = self.outputs(images)
        return outputs["probabilities"], outputs["logits"]

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """All that the file computes of images: see export.py."""
        parts = []
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            parts.append(self.runner(images=scaled(batch) if batch.dtype == np.uint8 else batch))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def predict_int8(path: Path, images: np.ndarray) -> np.ndarray:
    """What an int8 file predicts (see export.py).

    Args:
        path: of the file.
        images: uint8, shape (N, height, width, channels), N at least 1.

    Returns:
        Logits, float32, shape (N, classes).
    """
    with silent_stderr():
        interpreter = Interpreter(str(path), num_threads=THREADS)
        runner = interpreter.get_signature_runner("predict")
    scale, zero = runner.get_output_details()["logits"]["quantization"]
    parts = [
        runner(images=np.int8(np.int16(images[start : start + BATCH]) - 128))["logits"]
        for start in range(0, len(images), BATCH)
    ]
    return (np.concatenate(parts).astype(np.float32) - zero) * scale


class Ensemble:
    """The packaged models of some seeds, which predict together: the mean of their probabilities.

    What is chosen, the temperature of the mean and the threshold of what is accepted, is chosen on
    the images that were held out of training.

    >>> model = Ensemble([0])
    >>> probabilities, accepted = model(data.load_split("test").images[:10])

    Args:
        seeds: those in params.yaml.

    Raises:
        UserError: a file is missing or damaged, or the models were trained on different classes.
    """

    def __init__(self, seeds: list[int]):
        self.predictors = [Predictor(seed) for seed in seeds]
        self.info = self.predictors[0].info
        if any(each.info.classes != self.info.classes for each in self.predictors):
            raise UserError("the models are of different datasets: run `dvc repro package`")
        held = [each.held for each in self.predictors]
        single = [softmax(each.held["logits"], each.temperature) for each in self.predictors]
        self.temperature = 1.0  # of one model it is in the file
        if len(seeds) > 1:
            logs = np.log(np.maximum(mean_prediction(single), 1e-30))
            self.temperature = fit_temperature(logs, held[0]["labels"])
        likeness = np.mean([each["likeness"] for each in held], axis=0)
        probabilities = mean_prediction(single, self.temperature)
        self.threshold, self.strict_threshold = (
            rejection.threshold(likeness, probabilities, keep)
            for keep in (rejection.KEEP, rejection.KEEP_DOUBTFUL)
        )

    def mean(self, probabilities: list[np.ndarray]) -> np.ndarray:
        """The prediction of all, from those of each, in the order of the seeds."""
        return mean_prediction(probabilities, self.temperature)

    def __call__(self, images: np.ndarray, doubtful: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Predict the classes of images, and whether they look like those of the training.

        Args:
            images: uint8, or float32 in [0, 1], shape (N, height, width, channels), N at least 1.
            doubtful: something else says already that they may show nothing: fewer are accepted.

        Returns:
            Probabilities, float32, shape (N, classes), and accepted, bool, shape (N,): False if an
            image looks too little like its class, or no class is sure.
        """
        outputs = [each.outputs(images) for each in self.predictors]
        probabilities = self.mean([each["probabilities"] for each in outputs])
        labels = probabilities.argmax(axis=1)
        likeness = np.mean(
            [
                rejection.likeness(each["features"], labels, predictor.held["centres"])
                for each, predictor in zip(outputs, self.predictors, strict=True)
            ],
            axis=0,
        )
        sure = probabilities.max(axis=1) >= rejection.LEAST
        threshold = self.strict_threshold if doubtful else self.threshold
        return probabilities, sure & (likeness >= threshold)
