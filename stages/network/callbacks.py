"""What happens after each epoch: a line of progress, the learning curves, a backup.

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

from stages.base.files import atomic_output, write_csv
from stages.base.settings import Train
from stages.base.stage import UserError
from stages.network.runtime import keras, tf

DIVERGED = "lower train.learning_rate or train.muon_learning_rate, or raise train.warmup"
COLUMNS = {"accuracy": "train_accuracy", "loss": "train_loss"}  # by Keras' names
COLUMNS |= {"val_accuracy": "validation_accuracy", "val_loss": "validation_loss"}


class Progress(keras.callbacks.Callback):
    """Prints a line after each epoch, writes the learning curves, keeps a backup of the training.

    A bar shows progress within an epoch, on terminals only. The curves are written after each
    epoch, so that `dvc plots show` can draw them while a model trains. A loss that is no longer
    a number ends the training with a UserError.

    Args:
        settings: the section `train` of params.yaml.
        steps: per epoch.
        curves: the CSV file for the learning curves.
        backup: the file for weights, the optimizer's state and the logs of the finished epochs.
        key: the fingerprint of this training.
        writes: whether there are curves and backups; of several workers, one writes.
    """

    def __init__(
        self, settings: Train, steps: int, curves: Path, backup: Path, key: str, writes: bool
    ):
        super().__init__()
        self.epochs, self.batch_size = settings.epochs, settings.batch_size
        self.patience = settings.patience
        self.best_values: list[np.ndarray] = []  # of the model's variables, with patience
        self.images = steps * settings.batch_size  # per epoch
        self.curves, self.backup, self.key, self.writes = curves, backup, key, writes
        self.history: list[dict[str, float]] = []

    @property
    def best(self) -> int | None:
        """The index of the epoch with the lowest validation loss, None before there is one."""
        losses = [logs["val_loss"] for logs in self.history if "val_loss" in logs]
        return int(np.argmin(losses)) if losses else None

    @property
    def is_over(self) -> bool:
        """Whether the validation loss has not become lower for `patience` epochs."""
        return bool(self.patience and self.history) and (
            len(self.history) - 1 - self.best >= self.patience
        )

    def keep_best(self, model: keras.Model) -> None:
        """With patience, the model becomes that of the best epoch."""
        if self.patience:
            for variable, value in zip(model.variables, self.best_values, strict=True):
                variable.assign(value)
            print(f"kept: epoch {self.best + 1}, which has the lowest validation loss")

    def restore(self, model: keras.Model) -> int:
        """Put the state of an interrupted run into `model`, compiled, its optimizer built.

        Returns:
            The number of epochs it had finished; 0, and the model as it was, if there is no backup,
            or another run's, or a damaged one.
        """
        try:
            with np.load(self.backup, allow_pickle=False) as file:
                key, history, *values = (file[name] for name in file.files)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return 0
        if str(key) != self.key:
            return 0
        self.history = json.loads(str(history))
        state = state_of(model)
        for variable, value in zip(state, values, strict=False):
            variable.assign(value)
        self.best_values = values[len(state) :]
        self.write(model)
        return len(self.history)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.perf_counter()
        name = f"epoch {epoch + 1}/{self.epochs}"
        self.bar = tqdm(desc=name, total=self.images, unit=" images", disable=None, leave=False)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.seconds = time.perf_counter() - self.started  # without validation
        self.bar.set_postfix(logs, refresh=False)
        self.bar.update(self.batch_size)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.bar.close()
        if not np.isfinite(logs["loss"]):
            raise UserError(f"the loss became {logs['loss']} in epoch {epoch + 1}: {DIVERGED}")
        self.history.append({name: float(value) for name, value in logs.items()})
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in self.history[-1].items())
        rate = self.images / self.seconds
        print(f"epoch {epoch + 1}/{self.epochs}: {numbers}, {rate:,.0f} images/s", flush=True)
        if self.patience and self.best == epoch:
            self.best_values = [variable.numpy() for variable in self.model.variables]
        self.model.stop_training = self.is_over
        self.write(self.model)

    def write(self, model: keras.Model) -> None:
        """Write what was measured in each epoch so far as CSV, a row per epoch, and the backup.

        Without a validation set its columns are empty: DVC draws no chart if a column is missing.
        """
        if not self.writes:
            return
        frame = pd.DataFrame(self.history, columns=COLUMNS).rename(columns=COLUMNS).round(6)
        frame.insert(0, "epoch", range(1, len(frame) + 1))
        write_csv(self.curves, frame, index=False)
        values = [variable.numpy() for variable in state_of(model)] + self.best_values
        with atomic_output(self.backup) as temporary, open(temporary, "wb") as file:
            np.savez(file, self.key, json.dumps(self.history), *values)


def backup_of(seed: int) -> Path:
    """The file for a training's backup: no output, since DVC removes those before a stage runs."""
    return Path(".dvc/tmp/training", f"seed-{seed}.npz")


def state_of(model: keras.Model) -> list[keras.Variable]:
    """All that a step of training changes: the model's variables and the optimizer's."""
    return [*model.variables, *model.optimizer.variables]


def fingerprints(arrays: list[np.ndarray], settings: Train, seed: int) -> dict[str, str]:
    """Checksums of all that decides a training, by what they are of."""
    modules = [
        Path(module.__file__).read_bytes()
        for name, module in sorted(sys.modules.items())
        if (name == "__main__" or name.startswith("stages.")) and getattr(module, "__file__", None)
    ]
    return {
        "data": digest(*arrays),
        "params": digest(f"{settings.model_dump_json()} {seed}".encode()),
        "code or versions": digest(f"{tf.__version__} {keras.__version__}".encode(), *modules),
    }


def digest(*parts: np.ndarray | bytes) -> str:
    """A checksum of bytes, and of the values, dtypes and shapes of arrays; hexadecimal."""
    checksum = hashlib.blake2b()
    for part in parts:
        if isinstance(part, np.ndarray):
            checksum.update(f"{part.dtype} {part.shape}".encode())
            part = np.ascontiguousarray(part)
        checksum.update(part)
    return checksum.hexdigest()
