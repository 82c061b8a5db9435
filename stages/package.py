"""Stage package: what is made of the trained networks, so that people and programs can use them.

Each network gets five averaged views (views.py) and a temperature that makes its probabilities true
(calibration.py), and is written as a Keras file and as a LiteRT file. Nothing here trains, so other
views cost seconds. Its metrics are of training and validation images, so that runs can be compared
without a look at the test images.
"""

import shutil
from pathlib import Path

import numpy as np

from stages.base import arrays, params
from stages.base.files import replacing_together, write_json
from stages.base.stage import run_stage
from stages.network import saved
from stages.network.runtime import keras
from stages.network.settings import TRAINED, Seeds, folder_of
from stages.prediction.calibration import fit_temperature
from stages.prediction.export import exact, export
from stages.prediction.predict import PACKAGED
from stages.prediction.settings import Package
from stages.prediction.views import averaged_logits, with_temperature

METRICS = Path("metrics/package.json")
MEASURED = 2000  # training images on which accuracy and loss are measured, at most
BATCH = 1000  # images per prediction: enough to keep the cores busy


def package(seed: int, settings: Package, splits: dict[str, tuple]) -> dict:
    """Write models/packaged/seed-N.keras and .tflite of a trained network.

    Args:
        seed: of the network in models/trained.
        settings: the section `package` of params.yaml.
        splits: images, shape (N, 28, 28, 1), and labels, shape (N,), of "train" and "validation";
            the latter may be empty.

    Returns:
        The temperature, and of each split that is not empty the accuracy (share of images whose
        largest logit is the label's) and the loss (mean cross-entropy in nats).
    """
    keras.backend.clear_session()  # or layers would be numbered on from those of the last network
    trained = saved.load(folder_of(seed) / "network.keras")
    network, shift = exact(trained), settings.average_shift
    averaged = averaged_logits(network, shift)
    logits = {
        split: averaged.predict(images, batch_size=BATCH, verbose=0)
        for split, (images, _) in splits.items()
        if len(images)
    }
    held = splits["validation"][1]
    temperature = fit_temperature(logits["validation"], held) if len(held) else 1.0
    views = averaged_logits(trained, shift)
    saved.save(with_temperature(views, temperature), PACKAGED / f"seed-{seed}.keras")
    export(network, shift, temperature, PACKAGED / f"seed-{seed}.tflite")
    result = {"temperature": temperature}
    for split, values in logits.items():
        labels, scaled = splits[split][1], values / temperature
        loss = keras.losses.sparse_categorical_crossentropy(labels, scaled, from_logits=True)
        accuracy = float((values.argmax(axis=1) == labels).mean())
        result[split] = {"accuracy": accuracy, "loss": round(float(np.mean(loss)), 5)}
    return result


def headline(results: list[dict]) -> dict[str, float]:
    """The few numbers to compare runs by, each a mean over networks, rounded to four decimals.

    Args:
        results: of `package`, one per network.

    Returns:
        train, val: accuracy on training and on validation images; val_loss: mean cross-entropy of
        validation images after the temperature, in nats. The latter two only if there are any.
    """
    found = {
        "train": [of["train"]["accuracy"] for of in results],
        "val": [of["validation"]["accuracy"] for of in results if "validation" in of],
        "val_loss": [of["validation"]["loss"] for of in results if "validation" in of],
    }
    return {key: round(float(np.mean(values)), 4) for key, values in found.items() if values}


def remove_other_seeds(seeds: list[int]) -> None:
    """Remove the trained networks of seeds that are not in the list.

    DVC leaves the outputs of a seed that was taken from the list. This stage depends on the whole
    folder, so it would run again for what was trained before. DVC's cache still has them.
    """
    for path in sorted({*TRAINED.glob("seed-*")} - {*map(folder_of, seeds)}):
        print(f"{path}: removed, its seed is not in `seeds` any more")
        shutil.rmtree(path)


def main() -> None:
    seeds = params.load("seeds", Seeds)
    settings = params.load("package", Package)
    remove_other_seeds(seeds)
    splits = {split: arrays.load_split(split) for split in ("train", "validation")}
    every = -(-len(splits["train"][1]) // MEASURED)
    splits["train"] = tuple(values[::every] for values in splits["train"])
    results = {}
    for seed in seeds:
        results[str(seed)] = result = package(seed, settings, splits)
        found = [f"{s} accuracy {result[s]['accuracy']:.2%}" for s in splits if s in result]
        print(f"seed {seed}: temperature {result['temperature']:g}", *found, sep=", ", flush=True)
    with replacing_together() as new:
        write_json(new(METRICS), headline([*results.values()]))
        write_json(new(PACKAGED / "package.json"), results)


if __name__ == "__main__":
    run_stage(main)
