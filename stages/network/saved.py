"""Models as .keras files: the same bytes for the same weights, and data only.

Keras puts the time of saving and addresses in memory into the archive, and writes it in place; here
neither is done. Loading is in Keras' safe mode, which refuses layers that carry code.
"""

import json
import tempfile
import zipfile
from pathlib import Path

from stages.base.files import atomic_output
from stages.base.stage import UserError
from stages.network.runtime import keras

VARYING = {"date_saved", "shared_object_id"}  # differ between two files of the same model


def save(model: keras.Model, path: Path) -> None:
    """Write `model`, without an optimizer, to `path`; the file appears whole or not at all."""

    def without(content: dict) -> dict:
        return {key: value for key, value in content.items() if key not in VARYING}

    with tempfile.TemporaryDirectory() as folder, atomic_output(path) as temporary:
        draft = Path(folder, "model.keras")
        model.save(draft)
        with zipfile.ZipFile(draft) as old, zipfile.ZipFile(temporary, "w") as new:
            for name in sorted(old.namelist()):
                data = old.read(name)
                if name.endswith(".json"):
                    data = json.dumps(json.loads(data, object_hook=without)).encode()
                new.writestr(zipfile.ZipInfo(name), data)  # the time of a ZipInfo is fixed


def load(path: Path) -> keras.Model:
    """The model in `path`, for prediction.

    Raises:
        UserError: the file is missing, damaged, or holds a layer that would run code.
    """
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of many types
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be loaded ({reason}): run `dvc repro train`") from None
