"""One network trained by several workers: the hosts of a cluster, or the GPUs of this one.

Each worker computes the gradient of its part of every batch; the sum is what one worker alone would
have computed, but for rounding. TensorFlow's own runtime (MultiWorkerMirroredStrategy) sends it
around. Who is in the cluster stands in the environment variable TF_CONFIG, which Kubernetes'
training operator, Ray and others set; see docs/scaling.md. Keras' `fit` does not run on several
workers (keras-team/keras#20585), so the loop over its training steps stands here.
"""

import contextlib
import faulthandler
import functools
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator

import numpy as np

from stages.base.stage import UserError
from stages.network.callbacks import Progress, state_of
from stages.network.runtime import keras, tf

START = 40  # seconds in which all workers must have started; see _start_seconds
SILENT = 30  # seconds without a sign of life after which a worker counts as lost
EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", '
EXAMPLE += '"index": 0}}'

Batch = tuple[tf.Tensor, tf.Tensor]
Strategy = tf.distribute.Strategy


def join(batch_size: int) -> Strategy:
    """Join the cluster that TF_CONFIG names; without one, use the GPUs of this host, or its CPU.

    Returns when all workers are there. Call it before anything is computed.

    Raises:
        UserError: TF_CONFIG is no description of a cluster, this worker's port is in use, or the
            batches cannot be divided into equal parts.
    """
    strategy = _strategy()
    if batch_size % strategy.num_replicas_in_sync:
        raise UserError(
            f"train.batch_size: expected a multiple of {strategy.num_replicas_in_sync}, "
            f"for as many workers or GPUs, found {batch_size}"
        )
    return strategy


def _strategy() -> Strategy:
    if not os.environ.get("TF_CONFIG"):
        several = len(tf.config.list_physical_devices("GPU")) > 1
        return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
    (workers, number), seconds = _read_config(os.environ["TF_CONFIG"]), _start_seconds()
    port = int(workers[number].rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise UserError(
            f"worker {number}: port {port} cannot be used ({error.strerror}): end the process "
            "that has it, or name another port in TF_CONFIG of all workers"
        ) from None
    print(f"worker {number} of {len(workers)} waits for the others", flush=True)
    # There is no public way to set this; TensorFlow's 10 s are less than some machines stand still.
    from tensorflow.python.eager import context

    service = context.context()
    configure = service.configure_coordination_service
    service.configure_coordination_service = functools.partial(
        configure, heartbeat_timeout_in_ms=1000 * SILENT
    )
    with _within(seconds, f"not all of {', '.join(workers)} have started"):
        return tf.distribute.MultiWorkerMirroredStrategy()


def _start_seconds() -> int:
    """START, or what CLUSTER_START_SECONDS says, where hosts begin at different times."""
    text = os.environ.get("CLUSTER_START_SECONDS", str(START))
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"CLUSTER_START_SECONDS: expected a number of seconds, found {text!r}")
    return int(text)


def _read_config(text: str) -> tuple[list[str], int]:
    """The addresses of all workers and the number of this one, from TF_CONFIG."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        if not set(cluster) <= {"chief", "worker"}:
            raise ValueError(f"only chief and worker can train together, found {set(cluster)}")
        jobs = [job for job in ("chief", "worker") if cluster.get(job)]
        number = int(task["index"]) + (task["type"] == "worker") * len(cluster.get("chief", []))
        if not 0 <= int(task["index"]) < len(cluster[task["type"]]):
            raise ValueError(f"there is no {task['type']} {task['index']}")
        workers = [str(address) for job in jobs for address in cluster[job]]
        if faults := [address for address in workers if not address.rpartition(":")[2].isdigit()]:
            raise ValueError(f"expected host:port, found {faults[0]!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG: {error}; expected something like {EXAMPLE}, found {text[:200]!r}"
        ) from None
    return workers, number


def agree(strategy: Strategy, facts: dict[str, str]) -> None:
    """See that all workers have the same `facts`, hexadecimal digests by name.

    Raises:
        UserError: some differ; the message names them.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    own = np.array([int(digest[:15], 16) for digest in facts.values()])
    with _within(_start_seconds(), "the workers could not compare what they have"):
        everyone = strategy.gather(strategy.run(lambda: tf.constant(own[None])), axis=0).numpy()
    different = (everyone != everyone[0]).any(axis=0)
    if different.any():
        names = " and ".join(np.array(list(facts))[different])
        raise UserError(f"the workers differ in their {names}: give all the same and start again")


def share(strategy: Strategy, model: keras.Model, finished: int) -> int:
    """Give all workers what the first one has: the state of the training, the epochs finished."""
    if strategy.num_replicas_in_sync == 1:
        return finished
    variables = state_of(model)
    first = tf.constant(float(strategy.extended.should_checkpoint))

    @tf.function
    def from_first(values: list[tf.Tensor]) -> list[tf.Tensor]:
        replica = tf.distribute.get_replica_context()
        own = first * tf.cast(replica.replica_id_in_sync_group == 0, tf.float32)
        return [replica.all_reduce("SUM", value * tf.cast(own, value.dtype)) for value in values]

    values = [tf.constant(finished), *(tf.constant(variable.numpy()) for variable in variables)]
    shared = strategy.run(from_first, args=(values,))
    finished, *values = (strategy.experimental_local_results(each)[0] for each in shared)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return int(finished)


def fit(
    strategy: Strategy,
    model: keras.Model,
    batches: Callable[[], tf.data.Dataset],
    steps: int,
    validation: tuple[np.ndarray, np.ndarray],
    progress: Progress,
    epochs: range,
) -> None:
    """What `model.fit` does, on all workers.

    Args:
        strategy: in whose scope the model was compiled.
        batches: makes the batches of these epochs; each replica takes its part of each of them.
        steps: batches per epoch.
        validation: images and one-hot labels, predicted by all workers; may be empty.
        progress: called at the ends of batches and epochs.
    """
    replicas = strategy.num_replicas_in_sync

    def parts(context: tf.distribute.InputContext) -> tf.data.Dataset:
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        def split(images: tf.Tensor, labels: tf.Tensor) -> tf.data.Dataset:
            pieces = (tf.split(images, replicas), tf.split(labels, replicas))
            own = tuple(tf.stack(piece[first : first + local]) for piece in pieces)
            return tf.data.Dataset.from_tensor_slices(own)

        return batches().flat_map(split).prefetch(4)

    @tf.function
    def train(batch: Batch) -> None:
        strategy.run(model.train_step, args=(batch,))

    @tf.function
    def test(batch: Batch) -> None:
        strategy.run(model.test_step, args=(batch,))

    progress.set_model(model)
    unseen = tf.data.Dataset.from_tensor_slices(validation).batch(1000)
    # Metrics make their variables when first used, which cannot be in a graph of several GPUs.
    one = tf.zeros((1, *model.input_shape[1:])), tf.zeros((1, *model.output_shape[1:]))
    strategy.run(model.test_step, args=(one,))
    data = iter(strategy.distribute_datasets_from_function(parts))
    for epoch in epochs:
        progress.on_epoch_begin(epoch)
        model.reset_metrics()
        for step in range(steps):
            train(next(data))
            progress.on_train_batch_end(step)
        logs = {name: float(value) for name, value in model.get_metrics_result().items()}
        model.reset_metrics()
        for batch in unseen:
            test(batch)
        if len(unseen):
            tested = model.get_metrics_result().items()
            logs |= {f"val_{name}": float(value) for name, value in tested}
        progress.on_epoch_end(epoch, logs)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What workers do together: an error in it means, as a rule, that one of them is gone.

    They may wait for each other in any operation, so all they do has to be in this block.

    Raises:
        UserError: one is gone. Where TF_CONFIG names no workers, errors stay as they are.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not os.environ.get("TF_CONFIG"):
            raise
        text = " ".join(str(error).split())
        reason = text.rpartition("aborted by: ")[2].partition(" The error could be")[0]
        raise UserError(
            f"another worker is gone, or cannot be reached ({reason[:200]}): start all of them "
            "again; training goes on after its last whole epoch"
        ) from None


@contextlib.contextmanager
def _within(seconds: int, fault: str) -> Iterator[None]:
    """End the process with a message if the block takes longer.

    TensorFlow would wait for an hour, and while it waits no code of Python runs, not even a signal
    handler. What faulthandler then writes lets a shell, which waits for it, print the message.
    """
    message = f"error: {fault} within {seconds} seconds: start all of them again"
    shell = ["sh", "-c", 'read -r line && echo "$0" >&2', message]
    with subprocess.Popen(shell, stdin=subprocess.PIPE) as herald:
        faulthandler.dump_traceback_later(seconds, exit=True, file=herald.stdin)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
