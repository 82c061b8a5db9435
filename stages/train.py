"""Stage 3, train: one network from one seed, with Keras' compile and fit.

    python -m stages.train --seed 0

dvc.yaml runs it once per entry of train.seeds. It sees training and validation images only: the
test set is not among its dependencies, so nothing can be chosen on it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from dvclive import Live

from stages.base import arrays
from stages.network import backup
from stages.network import batches
from stages.prediction import calibration
from stages.network import curves
from stages import environment
from stages.network import saved as models
from stages.network import architecture as network
from stages.base import params
from stages.report import scores
from stages.base.files import replacing_together
from stages.base.stage import UserError, run_stage
from stages.network.optimizer import Muon
from stages.base.params import Train
from stages.network.progress import DIVERGED, Progress
from stages.network.runtime import keras, seed_everything

METRICS = Path("metrics/train")
MEASURED = 2000  # training images that the network is measured on in the end, at most


def train(
    images: np.ndarray,
    labels: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    settings: Train,
    seed: int,
    live: Live,
    saved: backup.Backup,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.Model:
    """Train a network; a pure function of its first five arguments on a given machine.

    Args:
        images: float32 in [0, 1], shape (N, 28, 28, 1).
        labels: uint8, shape (N,); each class occurs, so the largest tells how many there are.
        validation: images and labels like these, measured after each epoch; may be empty.
        settings: the section `train` of params.yaml; its `seeds` is not read.
        seed: of the initial weights, the order of the images and their augmentation.
        live: gets loss and accuracy after each epoch.
        saved: the state of an interrupted run to go on from, if any; gets it after each epoch.
        callbacks: further ones, called before those of the pipeline.

    Raises:
        UserError: there are fewer images than fill a batch, or the loss became NaN or infinite.
    """
    if len(images) < settings.batch_size:
        raise UserError(
            f"train.batch_size: {settings.batch_size} is more than the {len(images)} training "
            "images, not even one batch"
        )
    seed_everything(seed)
    classes = int(labels.max()) + 1
    steps = len(images) // settings.batch_size
    model = network.build(classes, settings.network)
    total = steps * settings.epochs
    warmup = round(total * settings.warmup)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else settings.learning_rate,
        warmup_target=settings.learning_rate if warmup else None,
        warmup_steps=warmup,
        decay_steps=max(total - warmup, 1),
    )
    model.compile(
        optimizer=Muon(
            schedule,
            settings.muon_learning_rate / settings.learning_rate,
            settings.momentum,
            settings.weight_decay,
        ),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing),
        metrics=["accuracy"],
    )
    progress = Progress(settings.epochs, steps, settings.batch_size, live)
    finished = saved.restore(model)
    progress.replay(finished)
    if len(finished) == settings.epochs:
        return model
    validation_images, validation_labels = validation
    model.fit(
        batches.training_batches(
            images,
            labels,
            classes,
            settings.batch_size,
            range(len(finished), settings.epochs),
            settings.augment,
            seed,
        ),
        initial_epoch=len(finished),
        epochs=settings.epochs,
        steps_per_epoch=steps,
        validation_data=(
            (validation_images, keras.utils.to_categorical(validation_labels, classes))
            if len(validation_labels)
            else None
        ),
        validation_batch_size=models.BATCH,
        callbacks=[*callbacks, keras.callbacks.TerminateOnNaN(), progress, saved],
        shuffle=False,  # the batches are shuffled already
        verbose=0,
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True, help="of weights, order, augmentation")
    seed = parser.parse_args().seed
    if not 0 <= seed < params.SEEDS:
        raise UserError(f"--seed: expected 0 to {params.SEEDS - 1}, found {seed}")
    settings = params.load().train
    environment.check_recorded()
    splits = {
        split: arrays.load_split(arrays.PROCESSED, split) for split in ("train", "validation")
    }
    data = [*splits["train"], *splits["validation"]]
    saved = backup.Backup(
        backup.FOLDER / f"seed-{seed}.npz", backup.fingerprint(data, settings, seed)
    )
    with curves.create(curves.CURVES / f"seed-{seed}") as live:
        model = train(*splits["train"], splits["validation"], settings, seed, live, saved)
    model = network.averaged_logits(model, settings.average_shift)
    model, of_validation = calibration.calibrated(model, *splits["validation"])
    images, labels = splits["train"]
    every = -(-len(labels) // MEASURED)
    of_train = models.predict(model, images[::every])
    results = {"train": scores.accuracy_and_loss(labels[::every], of_train)}
    _, labels = splits["validation"]
    if len(labels):
        results["validation"] = scores.accuracy_and_loss(labels, of_validation)
    if not all(np.isfinite(values["loss"]) for values in results.values()):
        raise UserError(f"the last step left a network that predicts no numbers; {DIVERGED}")
    temperature = calibration.temperature(model)
    with replacing_together() as new:
        scores.write_json(
            new(METRICS / f"seed-{seed}.json"), results | {"temperature": temperature}
        )
        models.save(model, new(models.path_of(seed)))
    saved.remove()
    for split, values in results.items():
        print(f"{split}: accuracy {values['accuracy']:.2%}, loss {values['loss']:.4f}")
    print(f"temperature: {temperature:.3f}")


if __name__ == "__main__":
    run_stage(main)
