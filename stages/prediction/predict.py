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
    """By seed, what `package` found: the temperature, accuracy and loss on images of a split."""
    return json.loads((PACKAGED / "package.json").read_text(encoding="utf-8"))


class Predictor:
    """The packaged network of one seed.

    Args:
        seed: one of those in params.yaml.

    Raises:
        UserError: the file is missing or damaged.
    """

    def __init__(self, seed: int):
        path = PACKAGED / f"seed-{seed}.tflite"
        try:
            with silent_stderr():
                self.interpreter = Interpreter(str(path), num_threads=THREADS)
                self.interpreter.allocate_tensors()
                self.runner = self.interpreter.get_signature_runner("predict")
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{path} cannot be loaded ({error}): run `dvc repro package`") from None

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict the classes of images.

        Args:
            images: float32 in [0, 1], shape (N, 28, 28, 1), N at least 1.

        Returns:
            Probabilities and logits (before the temperature), float32, shape (N, classes) each.
        """
        outputs = self.outputs(images)
        return outputs["probabilities"], outputs["logits"]

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """All that the file computes of images: see export.py."""
        starts = range(0, len(images), BATCH)
        parts = [self.runner(images=images[start : start + BATCH]) for start in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
