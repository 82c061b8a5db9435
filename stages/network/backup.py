"""A backup of training after each epoch: a kill loses at most one, the next run goes on from there.

It ends with the same bytes as an undisturbed run, since batches are a function of seed, epoch and
step. A backup carries the fingerprint of all that decides the result; another run's is not used.
"""

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import numpy as np

from stages.base.files import replacing
from stages.base.params import Train
from stages.network.runtime import keras, tf

FOLDER = Path(".dvc/tmp/training")  # no output: DVC removes those before a stage runs


def fingerprint(arrays: list[np.ndarray], settings: Train, seed: int) -> str:
    """A checksum of data, settings but for `seeds`, seed, code and libraries."""
    digest = hashlib.blake2b(settings.model_dump_json(exclude={"seeds"}).encode())
    digest.update(f"{seed} {tf.__version__} {keras.__version__}".encode())
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    for name, module in sorted(sys.modules.items()):
        if (name == "__main__" or name.startswith("stages.")) and hasattr(module, "__file__"):
            digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()


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
            backup, another run's, or a damaged one.
        """
        model.optimizer.build(model.trainable_variables)
        try:
            with np.load(self.path, allow_pickle=False) as file:
                saved = [file[name] for name in file.files]
            key, history, *values = saved
            if str(key) != self.key:
                return []
            self.history = json.loads(str(history))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return []
        for variable, value in zip(_state(model), values, strict=True):
            variable.assign(value)
        return self.history

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.history = [*self.history, {name: float(value) for name, value in logs.items()}]
        values = [variable.numpy() for variable in _state(self.model)]
        with replacing(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, self.key, json.dumps(self.history), *values)

    def remove(self) -> None:
        """Training is over and its network saved."""
        self.path.unlink(missing_ok=True)


def _state(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]
