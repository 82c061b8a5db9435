"""Stage train: one model from one seed, with Keras' compile and fit.

    python -m stages.train --seed 0

dvc.yaml runs it once per entry of `seeds`. It sees training and validation images only: the test
images are not among its dependencies, so nothing can be chosen on them. With the values in
params.yaml it trains in 70 to 150 seconds on two cores, to an accuracy of 99.66 ± 0.03 % on MNIST's
test images (five seeds; see docs/benchmarks.md).
"""

import functools
from pathlib import Path

import numpy as np

from stages.base import data, params, versions
from stages.base.data import Split, curves_of, scaled, trained_model
from stages.base.params import PARAMS
from stages.base.settings import Train
from stages.base.stage import UserError, arguments, run_stage
from stages.network import architecture, cluster, saved
from stages.network.batches import training_batches, visits
from stages.network.callbacks import DIVERGED, Progress, backup_of, fingerprints
from stages.network.optimizer import Muon
from stages.network.runtime import keras, limit_processor, seed_everything, tf


def train(
    training: Split,
    validation: Split,
    settings: Train,
    seed: int,
    curves: Path,
    strategy: tf.distribute.Strategy | None = None,
) -> keras.Model:
    """Train a model; on one machine, the same first four arguments give the same model.

    Args:
        training: images and labels.
        validation: images and labels, measured after each epoch; may be empty.
        settings: the section `train` of params.yaml.
        seed: of the initial weights, the order of the images and their augmentation.
        curves: the CSV file for the learning curves, a row per epoch.
        strategy: of cluster.joined, if several workers may train together.

    Returns:
        A model from images, float32 in [0, 1], shape (N, height, width, channels), to
        probabilities, shape (N, classes), of Keras' own layers.

    Raises:
        UserError: a param does not fit the data, or the loss became NaN or infinite.
    """
    check_fit(settings, training, validation)
    seed_everything(seed)
    images, labels, classes = training.images, training.labels, len(training.info.classes)
    steps = visits(len(images), settings) * len(images) // settings.batch_size  # per epoch
    rates = learning_rates(settings, steps * settings.epochs)
    muon_ratio = settings.muon_learning_rate / settings.learning_rate
    strategy = strategy or tf.distribute.get_strategy()
    arrays = [images, labels, validation.images, validation.labels]
    facts = fingerprints(arrays, settings, seed)
    cluster.agree(strategy, facts)
    with strategy.scope():
        model = architecture.build(training.info.shape, classes, settings.network)
        model.compile(
            optimizer=Muon(rates, muon_ratio, settings.momentum, settings.weight_decay),
            loss=keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing),
            metrics=["accuracy"],
        )
        model.optimizer.build(model.trainable_variables)
    key, writes = " ".join(facts.values()), strategy.extended.should_checkpoint
    progress = Progress(settings, steps, curves, backup_of(seed), key, writes)
    finished = progress.restore(model)
    cluster.agree(strategy, {"finished epochs": f"{finished:x}"})
    if finished:
        print(f"going on after epoch {finished}/{settings.epochs} of an interrupted run")
    epochs = range(finished, settings.epochs if not progress.is_over else finished)
    unseen = scaled(validation.images), keras.utils.to_categorical(validation.labels, classes)
    batches = functools.partial(
        training_batches, images, labels, classes, settings, range(finished, settings.epochs), seed
    )
    if strategy.num_replicas_in_sync > 1:
        cluster.fit(model, batches(), steps, unseen, progress, epochs)
    elif epochs:
        model.fit(
            batches(),
            initial_epoch=finished,
            epochs=settings.epochs,
            steps_per_epoch=steps,
            validation_data=unseen if len(validation.labels) else None,
            validation_batch_size=1000,  # images: enough to keep the cores busy
            callbacks=[keras.callbacks.TerminateOnNaN(), progress],
            shuffle=False,  # the batches are shuffled already
            verbose=0,
        )
    progress.keep_best(model)
    trained = architecture.with_keras_layers(model)
    predicted = trained.predict_on_batch(scaled(images[: settings.batch_size]))
    if not all(np.isfinite(values).all() for values in (predicted, *trained.get_weights())):
        raise UserError(f"the last step left a model that predicts no numbers: {DIVERGED}")
    return trained


def check_fit(settings: Train, training: Split, validation: Split) -> None:
    """See that the params fit the data (the crop: see architecture.build).

    Raises:
        UserError: one does not; the message says which values would.
    """
    side = min(training.info.shape[:2])
    if settings.augment.shift > side / 2:
        raise UserError(
            f"{PARAMS}: train.augment.shift: expected at most {side / 2:g}, half of an image, "
            f"found {settings.augment.shift:g}"
        )
    if settings.patience and not len(validation.labels):
        raise UserError(
            f"{PARAMS}: train.patience: expected 0, since there are no validation images "
            f"(preprocess.validation_size is 0), found {settings.patience}"
        )


def learning_rates(settings: Train, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate by step: linear from 0 to its peak, then along a cosine back to 0.

    Args:
        settings: learning_rate is the peak, warmup the share of the steps up to it.
        steps: of the whole training.
    """
    warmup = round(steps * settings.warmup)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warmup, 1), warmup_target=settings.learning_rate, warmup_steps=warmup
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, required=True, help="of weights, order, augmentation")
    seed = parser.parse_args().seed
    seeds, settings = (chosen := params.load()).seeds, chosen.train
    if seed not in seeds:
        raise UserError(f"--seed: expected one of `seeds` in {PARAMS}, {seeds}, found {seed}")
    versions.check()
    print(
        f"oneDNN computes with {limit_processor(settings.instructions, settings.threads)}",
        flush=True,
    )
    training, validation = data.load_split("train"), data.load_split("validation")
    with cluster.joined(settings.batch_size) as strategy:
        model = train(training, validation, settings, seed, curves_of(seed), strategy)
    if strategy.extended.should_checkpoint:
        saved.save(model, trained_model(seed))
        backup_of(seed).unlink(missing_ok=True)


if __name__ == "__main__":
    run_stage(main)
