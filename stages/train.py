"""Stage train: one network from one seed, with Keras' compile and fit.

    python -m stages.train --seed 0

dvc.yaml runs it once per entry of `seeds`. It sees training and validation images only: the test
images are not among its dependencies, so nothing can be chosen on them. With the values in
params.yaml it trains in 70 to 150 seconds on two cores, to an accuracy of 99.66 ± 0.03 % on MNIST's
test images (five seeds; see docs/benchmarks.md).
"""

import argparse
import functools
from pathlib import Path

import numpy as np

from stages.base import arrays, params, versions
from stages.base.stage import UserError, run_stage
from stages.network import architecture, cluster, saved
from stages.network.batches import training_batches
from stages.network.callbacks import DIVERGED, Progress, backup_of, fingerprints
from stages.network.optimizer import Muon
from stages.network.runtime import keras, limit, seed_everything, tf
from stages.network.settings import Train, folder_of

Split = tuple[np.ndarray, np.ndarray]


def train(
    data: Split,
    validation: Split,
    settings: Train,
    seed: int,
    folder: Path,
    strategy: tf.distribute.Strategy | None = None,
) -> keras.Model:
    """Train a network; on one machine, the same first four arguments give the same network.

    Args:
        data: images, float32 in [0, 1], shape (N, 28, 28, 1), and labels, uint8, shape (N,); N is
            at least a batch. The last class must occur: the largest label tells how many there are.
        validation: images and labels like these, measured after each epoch; may be empty.
        settings: the section `train` of params.yaml.
        seed: of the initial weights, the order of the images and their augmentation.
        folder: gets curves.csv, a row per epoch.
        strategy: of cluster.joined, if several workers may train together.

    Returns:
        A network from images to probabilities, shape (N, classes), of Keras' own layers.

    Raises:
        UserError: the loss became NaN or infinite.
    """
    seed_everything(seed)
    images, labels = data
    classes = int(labels.max()) + 1
    steps = len(images) // settings.batch_size  # per epoch
    rates = learning_rates(settings, steps * settings.epochs)
    muon_ratio = settings.muon_learning_rate / settings.learning_rate
    strategy = strategy or tf.distribute.get_strategy()
    facts = fingerprints([*data, *validation], settings, seed)
    cluster.agree(strategy, facts)
    with strategy.scope():
        model = architecture.build(classes, settings.network)
        model.compile(
            optimizer=Muon(rates, muon_ratio, settings.momentum, settings.weight_decay),
            loss=keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing),
            metrics=["accuracy"],
        )
        model.optimizer.build(model.trainable_variables)
    key, writes = " ".join(facts.values()), strategy.extended.should_checkpoint
    progress = Progress(settings, steps, folder / "curves.csv", backup_of(seed), key, writes)
    if finished := cluster.share(model, progress.restore(model)):
        print(f"going on after epoch {finished}/{settings.epochs} of an interrupted run")
    epochs = range(finished, settings.epochs)
    unseen = validation[0], keras.utils.to_categorical(validation[1], classes)
    batches = functools.partial(training_batches, images, labels, classes, settings, epochs, seed)
    if strategy.num_replicas_in_sync > 1:
        cluster.fit(model, batches(), steps, unseen, progress, epochs)
    elif epochs:
        model.fit(
            batches(),
            initial_epoch=finished,
            epochs=settings.epochs,
            steps_per_epoch=steps,
            validation_data=unseen if len(validation[1]) else None,
            validation_batch_size=1000,  # images: enough to keep the cores busy
            callbacks=[keras.callbacks.TerminateOnNaN(), progress],
            shuffle=False,  # the batches are shuffled already
            verbose=0,
        )
    network = architecture.stock(model)
    predicted = network.predict_on_batch(images[: settings.batch_size])
    if not all(np.isfinite(values).all() for values in (predicted, *network.get_weights())):
        raise UserError(f"the last step left a network that predicts no numbers: {DIVERGED}")
    return network


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True, help="of weights, order, augmentation")
    seed = parser.parse_args().seed
    if not 0 <= seed < params.SEED_LIMIT:
        raise UserError(f"--seed: expected 0 to {params.SEED_LIMIT - 1}, found {seed}")
    settings = params.load("train", Train)
    versions.check(versions.ENVIRONMENT)  # what the stage `environment` noted
    print(f"oneDNN computes with {limit(settings.instructions, settings.threads)}", flush=True)
    data, validation = arrays.load_split("train"), arrays.load_split("validation")
    folder = folder_of(seed)
    with cluster.joined(settings.batch_size) as strategy:
        network = train(data, validation, settings, seed, folder, strategy)
    if strategy.extended.should_checkpoint:
        saved.save(network, folder / "network.keras")
        backup_of(seed).unlink(missing_ok=True)


if __name__ == "__main__":
    run_stage(main)
