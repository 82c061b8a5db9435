"""Predictions of packaged networks: LiteRT files, run without TensorFlow."""

import json
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from stages.base.quiet import silent_stderr
from stages.base.stage import UserError

PACKAGED = Path("models/packaged")  # per seed a .keras file and a .tflite file; package.json
BATCH = 200  # images at a time: enough to keep the cores busy
THREADS = 2  # the result does not depend on it


def load_results() -> dict[str, dict]:
    """By seed, what `package` found: temperature, accuracy and loss on train and validation images.

    Raises:
        UserError: nothing has been packaged yet.
    """
    path = PACKAGED / "package.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} not found: run `dvc repro package` first") from None


class Predictor:
    """The packaged network of one seed.

    Args:
        seed: one of those in params.yaml.
        classes: how many the network must tell apart.

    Raises:
        UserError: the file is missing, damaged, or of another number of classes.
    """

    def __init__(self, seed: int, classes: int):
        path = PACKAGED / f"seed-{seed}.tflite"
        if not path.is_file():
            raise UserError(f"{path} not found: run `dvc repro package` first")
        try:
            with silent_stderr():
                self.interpreter = Interpreter(str(path), num_threads=THREADS)
                self.interpreter.allocate_tensors()
                runner = self.interpreter.get_signature_runner("predict")
            self.outputs = runner.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{path} is no LiteRT network of this pipeline: {error}") from None
        found = int(self.outputs["logits"]["shape"][-1])
        if found != classes:
            raise UserError(
                f"{path}: expected {classes} classes, found {found}: run `dvc repro` to train again"
            )

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict the classes of images.

        Args:
            images: float32 in [0, 1], shape (N, 28, 28, 1), N at least 1.

        Returns:
            Probabilities and logits (before the temperature), float32, shape (N, classes) each.
        """
        runner = self.interpreter.get_signature_runner("predict")
        parts = [
            runner(images=np.ascontiguousarray(images[start : start + BATCH]))
            for start in range(0, len(images), BATCH)
        ]
        return tuple(
            np.concatenate([part[name] for part in parts]) for name in ("probabilities", "logits")
        )
