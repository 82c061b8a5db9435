"""One model trained by several workers, hosts or GPUs; see docs/scaling.md.

Keras' `fit` does not run on several workers (keras-team/keras#20585), so its loop stands here.
"""

import contextlib
import faulthandler
import os
from collections.abc import Iterator

import numpy as np

from stages.base.stage import UserError
from stages.network.callbacks import Progress, digest
from stages.network.runtime import keras, tf

START = 300  # seconds in which all workers must have started


@contextlib.contextmanager
def joined(batch_size: int) -> Iterator[tf.distribute.Strategy]:
    """Join the workers in TF_CONFIG, or else the GPUs of this host; the block is what they do.

    Raises a UserError if TF_CONFIG is wrong, batches can't be divided, or another worker is gone.
    """
    config, gpus = os.environ.get("TF_CONFIG"), tf.config.list_physical_devices("GPU")
    alone = tf.distribute.MirroredStrategy if len(gpus) > 1 else tf.distribute.get_strategy
    try:
        strategy = _wait_for_all(config) if config else alone()
        if batch_size % (parts := strategy.num_replicas_in_sync):
            raise UserError(f"train.batch_size: expected a multiple of {parts}, found {batch_size}")
        yield strategy
    except tf.errors.OpError as error:
        if not config:
            raise
        # Of TensorFlow's words, the last clause of the first line: the rest names its own parts.
        line = str(error).rpartition("aborted by: ")[2].strip().partition("\n")[0]
        reason = line.rstrip(": ").rpartition(": ")[2]
        message = f"another worker is gone ({reason}): start all of them again"
        raise UserError(f"{message}; training goes on after its last whole epoch") from None


def _wait_for_all(config: str) -> tf.distribute.Strategy:
    print(f"waiting at most {START} seconds for all workers to start", flush=True)
    with open(os.devnull, "w") as nowhere:
        # TensorFlow would wait for an hour, and no line of Python runs while it does.
        faulthandler.dump_traceback_later(START, exit=True, file=nowhere)
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except (ValueError, TypeError, tf.errors.UnknownError) as error:
            raise UserError(f"TF_CONFIG: {error}, found {config}; see docs/scaling.md") from None
        finally:
            faulthandler.cancel_dump_traceback_later()


def agree(strategy: tf.distribute.Strategy, facts: dict[str, str]) -> None:
    """Raise a UserError if some workers have other `facts`, hexadecimal numbers by name."""
    own = np.array([int(fact[:15], 16) for fact in facts.values()])
    everyones = strategy.gather(strategy.run(lambda: tf.constant(own[None])), axis=0).numpy()
    if differ := [name for name, values in zip(facts, everyones.T, strict=True) if np.ptp(values)]:
        raise UserError(f"the workers differ in their {' and '.join(differ)}: give all the same")


def fit(
    model: keras.Model,
    batches: tf.data.Dataset,
    steps: int,
    validation: tuple[np.ndarray, np.ndarray],
    progress: Progress,
    epochs: range,
) -> None:
    """What `model.fit` does, on all workers; `model` was compiled in the scope of their strategy.

    The arguments are those of `model.fit`; `batches` are whole, each worker takes its part of them.
    """
    strategy = model.distribute_strategy
    train = tf.function(lambda batch: strategy.run(model.train_step, args=(batch,)))
    test = tf.function(lambda batch: strategy.run(model.test_step, args=(batch,)))
    parts = iter(strategy.experimental_distribute_dataset(batches))
    unseen = tf.data.Dataset.from_tensor_slices(validation).batch(1000)
    # Metrics make their variables when first used, which cannot be in a graph of several GPUs.
    one = [tf.zeros((1, *shape[1:])) for shape in (model.input_shape, model.output_shape)]
    strategy.run(model.test_step, args=(one,))
    progress.set_model(model)
    for epoch in epochs:
        progress.on_epoch_begin(epoch)
        model.reset_metrics()
        for step in range(steps):
            train(next(parts))
            progress.on_train_batch_end(step)
        logs = model.get_metrics_result()
        model.reset_metrics()
        for batch in unseen:
            test(batch)
        if len(unseen):
            logs |= {f"val_{name}": value for name, value in model.get_metrics_result().items()}
        progress.on_epoch_end(epoch, {name: float(value) for name, value in logs.items()})
        if model.stop_training:
            break
    agree(strategy, {"weights": digest(*model.get_weights())})
