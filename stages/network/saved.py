"""Trained networks as .keras files: the same bytes for the same weights, and data only.

Keras puts the time of saving (twice) and addresses in memory into the archive, and writes in place;
this does none of it. A file is looked through before Keras sees it: it holds what `save` writes, is
not compressed, and names Keras' own layers only. Keras then loads it in its safe mode, which
refuses layers that carry code.
"""

import json
import stat
import zipfile
from pathlib import Path

import numpy as np

from stages.base.files import replacing
from stages.base.stage import UserError
from stages.network.runtime import keras

MODELS = Path("models")  # one network per seed
BATCH = 1000  # images at a time in prediction: enough to keep the cores busy
MEMBERS = ["config.json", "metadata.json", "model.weights.h5"]  # of a .keras archive
MODULES = {"keras", "keras.initializers", "keras.layers", "keras.src.models.functional"}


def path_of(seed: int) -> Path:
    """Where the network of that seed is kept."""
    return MODELS / f"seed-{seed}.keras"


def save(model: keras.Model, path: Path) -> None:
    """Write `model` without its optimizer to `path`, whole or not at all."""
    inference = keras.Model(model.inputs, model.outputs, name=model.name)
    with replacing(path) as temporary:
        draft = temporary.with_suffix(".keras")  # the only ending that Keras writes
        try:
            inference.save(draft)
            _rewrite(draft, temporary)
        finally:
            draft.unlink(missing_ok=True)


def _rewrite(source: Path, target: Path) -> None:
    """Copy a .keras archive without what differs between two equal networks."""
    differing = {"date_saved", "shared_object_id"}

    def without(content: dict) -> dict:
        return {key: value for key, value in content.items() if key not in differing}

    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in sorted(old.namelist()):
            data = old.read(name)
            if name.endswith(".json"):
                data = json.dumps(json.loads(data, object_hook=without)).encode()
            new.writestr(zipfile.ZipInfo(name), data)  # a ZipInfo's time is 1980 unless set


def _check(path: Path) -> None:
    """Raise ValueError or zipfile.BadZipFile if `save` cannot have written `path`."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = sorted(entry.filename for entry in entries)
        if names != MEMBERS:
            raise ValueError(f"expected the members {MEMBERS}, found {names}")
        if (
            not all(
                entry.compress_type == zipfile.ZIP_STORED
                and not stat.S_ISLNK(entry.external_attr >> 16)
                and entry.file_size == entry.compress_size
                for entry in entries
            )
            or sum(entry.file_size for entry in entries) > path.stat().st_size
        ):
            raise ValueError("expected plain members, found compressed or linked ones")
        json.loads(archive.read("config.json"), object_hook=_check_class)


def _check_class(content: dict) -> dict:
    """Raise ValueError if an object of a network's config would be made by other than Keras."""
    name, module = content.get("class_name"), content.get("module")
    if name == "__keras_tensor__" or "class_name" not in content and "module" not in content:
        return content
    if module not in MODULES or content.get("registered_name") not in (None, "Functional"):
        raise ValueError(f"expected Keras' own layers, found {name!r} of module {module!r}")
    return content


def load(path: Path, classes: int) -> keras.Model:
    """The network in `path`, for prediction.

    Args:
        path: a file that `save` wrote.
        classes: how many probabilities it must give.

    Raises:
        UserError: the file is missing, damaged, unsafe, or has other inputs or outputs.
    """
    if not path.is_file():
        raise UserError(f"{path} not found: run `dvc repro` to train it")
    try:
        _check(path)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many types on a damaged file
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no intact network of this pipeline: {reason}") from None
    if model.input_shape != (None, 28, 28, 1) or model.output_shape != (None, classes):
        raise UserError(
            f"{path}: expected 28×28 images to {classes} probabilities, found "
            f"{model.input_shape} to {model.output_shape}: run `dvc repro` to train it again"
        )
    return model


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What `model` says, float32, shape (N, classes), of float32 images, shape (N, 28, 28, 1).

    Keras' own `predict` gives the same bytes in up to twice the time: it makes a tf.data pipeline
    of the array at each call. N is at least 1.
    """
    parts = np.split(images, range(BATCH, len(images), BATCH))
    return np.concatenate([model.predict_on_batch(part) for part in parts])
