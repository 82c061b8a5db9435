"""Stage package: what is made of a trained model, so that people and programs can use it.

    python -m stages.package --seed 0

The model gets five averaged views (views.py) and a temperature that calibrates its probabilities
(calibration.py); what looks like its training images is noted (rejection.py). It is written as a
Keras file, as LiteRT files for phones and small boards, and as data for a page. Nothing here
trains, so other views cost seconds. Its metrics are of training and validation images, so that runs
can be compared without a look at the test images. dvc.yaml runs it once per entry of `seeds`.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from stages.base import data, params, versions
from stages.base.data import Split, scaled, trained_model
from stages.base.files import atomic_outputs, write_csv, write_json
from stages.base.params import PARAMS
from stages.base.settings import Package
from stages.base.stage import UserError, arguments, run_stage
from stages.network import saved
from stages.network.runtime import keras
from stages.prediction import rejection
from stages.prediction.calibration import fit_temperature
from stages.prediction.export import export, export_int8, portable
from stages.prediction.page import page_data
from stages.prediction.predict import Predictor, folder_of, predict_int8
from stages.prediction.views import averaged_logits, with_temperature

METRICS, EXPORTS = Path("metrics/package"), Path("metrics/exports")
MEASURED = 2000  # training images on which accuracy and loss are measured, at most
GROUPED = 5500  # training images whose features are grouped, at most
REPRESENTATIVE = 200  # training images that show the range of each layer's values
BATCH = 500  # images per prediction: enough to keep the cores busy


def package(seed: int, settings: Package, training: Split, validation: Split) -> dict:
    """Write models/packaged/seed-N of a trained model.

    Args:
        seed: of the model in models/trained.
        settings: the section `package` of params.yaml.
        training, validation: images and labels; those of validation may be empty.

    Returns:
        By split that is not empty: accuracy, the share of images whose largest logit is the
        label's, and loss, the mean cross-entropy in nats after the temperature.
    """
    shape, shift = training.info.shape, settings.average_shift
    if shift > min(shape[:2]) // 2:
        raise UserError(
            f"{PARAMS}: package.average_shift: expected at most {min(shape[:2]) // 2}, half of an "
            f"image, found {shift}"
        )
    keras.backend.clear_session()  # the numbers in layers' names begin anew
    trained = saved.load(trained_model(seed))
    model, folder = portable(trained), folder_of(seed)
    averaged = averaged_logits(model, shift)
    features = keras.Model(model.input, model.get_layer("classifier").input)

    print(f"seed {seed}: what the training images look like to the model", flush=True)
    grouped, labels = (sample(values, GROUPED) for values in (training.images, training.labels))
    centres = rejection.centres_of(
        in_batches(features, grouped), labels, len(training.info.classes)
    )
    measured = {
        "train": tuple(sample(values, MEASURED) for values in (training.images, training.labels)),
        "validation": (validation.images, validation.labels),
    }
    measured = {split: pair for split, pair in measured.items() if len(pair[1])}
    count = sum(len(labels) for _, labels in measured.values())
    print(f"predicting {count:,} images to calibrate", flush=True)
    logits = {split: in_batches(averaged, images) for split, (images, _) in measured.items()}
    # Choices are made on held-out images; without any, on training images, which flatter them.
    choosing = "validation" if "validation" in logits else "train"
    images, labels = measured[choosing]
    likeness = rejection.likeness(
        in_batches(features, images), logits[choosing].argmax(axis=1), centres
    )
    temperature = fit_temperature(logits[choosing], labels) if choosing == "validation" else 1.0
    held = {"logits": logits[choosing], "labels": labels, "likeness": likeness, "centres": centres}
    facts = {"temperature": temperature, "dataset": training.info.model_dump(mode="json")}
    print("writing the files", flush=True)
    views = averaged_logits(trained, shift)
    saved.save(with_temperature(views, temperature), folder / "model.keras")
    export(model, shift, temperature, folder / "model.tflite")
    export_int8(model, shift, sample(training.images, REPRESENTATIVE), folder / "int8.tflite")
    with atomic_outputs() as temporary:
        with open(temporary(folder / "held.npz"), "wb") as file:
            np.savez(file, **held)
        write_json(temporary(folder / "model.json"), facts)
        write_json(temporary(folder / "page.json"), for_page(trained, shift))
    print("comparing the files", flush=True)
    write_csv(EXPORTS / f"seed-{seed}.csv", compare(seed, images, labels, logits[choosing]))
    result = {}
    for split, values in logits.items():
        labels = measured[split][1]
        loss = -log_softmax(values / temperature, axis=1)[np.arange(len(labels)), labels].mean()
        accuracy = float((values.argmax(axis=1) == labels).mean())
        result[split] = {"accuracy": accuracy, "loss": float(loss), "temperature": temperature}
    return result


def for_page(trained: keras.Model, shift: int) -> dict:
    """What a page needs to compute the model, or the reason why it can't."""
    try:
        return page_data(trained) | {"shift": shift}
    except UserError as error:  # nobody should have to do without the other files for that
        print(f"note: {error}")
        return {"refused": str(error)}


def compare(seed: int, images: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    """The size of each file, and its errors on held-out images.

    Args:
        seed: of the packaged model.
        images, labels: shape (N, height, width, channels), (N,).
        logits: what the model predicts of them, shape (N, classes).

    Returns:
        A row per file: `file`; `kB`; `images`, how many were predicted; `errors`; `other`, on how
        many of them it predicts another class than the Keras file.
    """
    folder, expected = folder_of(seed), logits.argmax(axis=1)
    predicted = {
        "model.keras": expected,
        "model.tflite": Predictor(seed)(images)[1].argmax(axis=1),
        "int8.tflite": predict_int8(folder / "int8.tflite", images).argmax(axis=1),
    }
    rows = [
        {
            "file": name,
            "kB": round((folder / name).stat().st_size / 1000),
            "images": len(labels),
            "errors": int((guesses != labels).sum()),
            "other": int((guesses != expected).sum()),
        }
        for name, guesses in predicted.items()
    ]
    return pd.DataFrame(rows).set_index("file")


def sample(values: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows, evenly over all."""
    return values[:: -(-len(values) // most)]


def in_batches(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Predictions of images, uint8, shape (N, height, width, channels)."""
    starts = range(0, len(images), BATCH)
    parts = [model.predict_on_batch(scaled(images[start : start + BATCH])) for start in starts]
    return np.concatenate(parts)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, required=True, help="of a trained model")
    seed, settings = parser.parse_args().seed, params.load().package
    versions.check()
    result = package(seed, settings, data.load_split("train"), data.load_split("validation"))
    # The few numbers to compare runs by; the names are short since DVC's tables are wide.
    headline = {"train": result["train"]["accuracy"]}
    if "validation" in result:
        headline |= {
            "val": result["validation"]["accuracy"],
            "val_loss": result["validation"]["loss"],
        }
    headline = {name: round(value, 4) for name, value in headline.items()}
    write_json(METRICS / f"seed-{seed}.json", headline)
    told = ", ".join(f"{name} {value:.4f}" for name, value in headline.items())
    print(f"temperature {result['train']['temperature']:g}, {told}")


if __name__ == "__main__":
    run_stage(main)
