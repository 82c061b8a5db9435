"""What happens beside the training itself: progress, learning curves, a backup of each epoch.

A killed training loses at most one epoch: the next run goes on from the backup, and ends with the
same bytes as an undisturbed run, since batches are a function of seed, epoch and step. A backup
carries a fingerprint of all that decides the result; the backup of another run is not used.
"""

import hashlib
import json
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from stages.base.files import replacing, write_csv
from stages.base.stage import UserError
from stages.network.runtime import keras, tf
from stages.network.settings import Train

BACKUPS = Path(".dvc/tmp/training")  # no output of a stage: DVC removes those before it runs
DIVERGED = "lower train.learning_rate or train.muon_learning_rate, or raise train.warmup"


class Progress(keras.callbacks.Callback):
    """Shows loss, accuracy, validation accuracy and images per second.

    The bar is for terminals only; a line is printed after each epoch. The learning curves are
    written after each epoch, so that `dvc plots show` can draw them while a network trains.

    Ends training with a UserError at the end of an epoch whose loss is no longer a number.

    Args:
        images: training images per epoch.
        curves: the CSV file for the learning curves.
    """

    def __init__(self, epochs: int, images: int, batch_size: int, curves: Path):
        super().__init__()
        self.epochs, self.images, self.batch_size, self.curves = epochs, images, batch_size, curves
        self.history: list[dict[str, float]] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.perf_counter()
        self.bar = tqdm(
            total=self.images,
            desc=f"epoch {epoch + 1}/{self.epochs}",
            unit=" images",
            unit_scale=True,
            mininterval=0.5,
            disable=None,
            leave=False,
        )

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.seconds = time.perf_counter() - self.started
        if not self.bar.disable:
            text = f"loss {logs['loss']:.4f}, accuracy {logs['accuracy']:.2%}"
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(self.batch_size)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.bar.close()
        if not abs(logs["loss"]) < float("inf"):
            raise UserError(f"the loss became {logs['loss']} in epoch {epoch + 1}: {DIVERGED}")
        line = f"epoch {epoch + 1}/{self.epochs}: loss {logs['loss']:.4f}"
        line += f", accuracy {logs['accuracy']:.2%}"
        if "val_accuracy" in logs:
            line += f", validation accuracy {logs['val_accuracy']:.2%}"
        print(f"{line}, {self.images / self.seconds:,.0f} images/s", flush=True)
        self.write_curves([*self.history, logs])

    def write_curves(self, history: list[dict[str, float]]) -> None:
        """Write Keras' logs of all epochs so far as CSV, a row per epoch."""
        self.history = history
        frame = pd.DataFrame({"epoch": range(1, len(history) + 1)})
        for split, prefix in (("train", ""), ("validation", "val_")):
            for name in ("accuracy", "loss"):
                if prefix + name in history[0]:
                    values = [logs[prefix + name] for logs in history]
                    frame[f"{split}_{name}"] = np.round(values, 6)
        write_csv(self.curves, frame, index=False)


class Backup(keras.callbacks.Callback):
    """Keeps weights, the optimizer's state and the epochs' logs in the file `path`."""

    def __init__(self, path: Path, key: str):
        super().__init__()
        self.path, self.key = path, key
        self.history: list[dict[str, float]] = []

    def restore(self, model: keras.Model) -> list[dict[str, float]]:
        """Put the state of an interrupted run into `model`, compiled and built.

        Returns:
            The logs of the epochs it had finished; empty, and the model as it was, if there is no
            backup, or another run's, or a damaged one.
        """
        model.optimizer.build(model.trainable_variables)
        try:
            with np.load(self.path, allow_pickle=False) as file:
                key, history, *values = (file[name] for name in file.files)
            if str(key) != self.key:
                return []
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return []
        self.history = json.loads(str(history))
        for variable, value in zip(_state(model), values, strict=True):
            variable.assign(value)
        return self.history

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.history = [*self.history, {name: float(value) for name, value in logs.items()}]
        values = [variable.numpy() for variable in _state(self.model)]
        with replacing(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, self.key, json.dumps(self.history), *values)


def _state(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def fingerprint(arrays: list[np.ndarray], settings: Train, seed: int) -> str:
    """A checksum of all that decides a training: data, settings, seed, code and libraries."""
    digest = hashlib.blake2b(settings.model_dump_json().encode())
    digest.update(f"{seed} {tf.__version__} {keras.__version__}".encode())
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    for name, module in sorted(sys.modules.items()):
        if (name == "__main__" or name.startswith("stages.")) and getattr(module, "__file__", None):
            digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()
