"""What a person sees while a network trains: a bar, a line per epoch, and growing curves."""

import time

from dvclive import Live
from tqdm import tqdm

from stages.base.stage import UserError
from stages.network.runtime import keras

DIVERGED = (
    "nothing was saved. Lower train.learning_rate or train.muon_learning_rate, or raise "
    "train.warmup"
)


class Progress(keras.callbacks.Callback):
    """Shows loss, accuracy, validation accuracy and images per second.

    The bar is for terminals only; a line is printed after each epoch, and its loss and accuracy
    are added to `live`, whose files `dvc plots show` draws, also during the run.

    Ends training with a UserError at the end of an epoch whose loss is no longer a number.
    """

    def __init__(self, epochs: int, steps: int, batch_size: int, live: Live):
        super().__init__()
        self.epochs, self.images, self.batch_size = epochs, steps * batch_size, batch_size
        self.live = live

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.perf_counter()
        self.bar = tqdm(
            total=self.images,
            desc=f"epoch {epoch + 1}/{self.epochs}",
            unit=" images",
            unit_scale=True,
            mininterval=0.5,
            disable=None,
            leave=False,
        )

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.seconds = time.perf_counter() - self.started
        if not self.bar.disable:
            text = f"loss {logs['loss']:.4f}, accuracy {logs['accuracy']:.2%}"
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(self.batch_size)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.bar.close()
        if not abs(logs["loss"]) < float("inf"):
            raise UserError(f"the loss became {logs['loss']} in epoch {epoch + 1}; {DIVERGED}")
        line = f"epoch {epoch + 1}/{self.epochs}: loss {logs['loss']:.4f}"
        line += f", accuracy {logs['accuracy']:.2%}"
        if "val_accuracy" in logs:
            line += f", validation accuracy {logs['val_accuracy']:.2%}"
        self._log(logs)
        print(f"{line}, {self.images / self.seconds:,.0f} images/s", flush=True)

    def replay(self, finished: list[dict[str, float]]) -> None:
        """Take up the logs of epochs that an interrupted run had finished."""
        for logs in finished:
            self._log(logs)
        if finished:
            print(f"going on after epoch {len(finished)}/{self.epochs} of an interrupted run")

    def _log(self, logs: dict[str, float]) -> None:
        for name, value in logs.items():
            split = "validation" if name.startswith("val_") else "train"
            self.live.log_metric(f"{split}/{name.removeprefix('val_')}", round(value, 6))
        self.live.next_step()
