"""One training run of one contender of the benchmark, in a process of its own.

    python -m benchmarks.contenders notebook --seed 0 --output run.json

Ours are the pipeline's own `train` and `package`, with the values of params.yaml and of presets/.
The others are written here from their published descriptions and run as their users run them: by a
plain fit, without determinism. The clock runs from the building of the model to the last step,
with libraries imported and images in memory. It stops after each epoch, while the test images are
predicted; the errors are noted and used for nothing.
"""

import argparse
import contextlib
import functools
import json
import shlex
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from stages.base import data, params
from stages.base.settings import Package, Train
from stages.report.corruptions import MNIST_C, corrupt

PRESETS = Path(__file__).resolve().parent.parent / "presets"  # options for `dvc exp run`
MATRIX = 2048  # side of the square matrices whose product tells the machine's rate
BATCH = 1000  # test images per prediction

Images = tuple[np.ndarray, np.ndarray]  # and their labels


class Clock:
    """Seconds of training, and the test errors after each epoch."""

    def __init__(self):
        self.images, self.labels = load("test")
        self.classes = len(data.load_split("test").info.classes)
        self.seconds, self.curve = 0.0, []

    def start(self) -> None:
        self.started = time.perf_counter()

    def epoch_ends(self, predictor: Callable[[], Callable]) -> None:
        """Stop, note the test errors, and go on.

        Args:
            predictor: makes a function from a block of images to scores by class.
        """
        self.seconds += time.perf_counter() - self.started
        self.predict = predictor()
        errors = self.errors(self.images, self.labels)
        self.curve.append({"seconds": self.seconds, "test_errors": errors})
        self.start()

    def errors(self, images: np.ndarray, labels: np.ndarray) -> int:
        """How many of these the model misclassifies as it was at the end of the last epoch."""
        blocks = np.array_split(images, -(-len(images) // BATCH))
        found = np.concatenate([np.asarray(self.predict(block)).argmax(axis=1) for block in blocks])
        return int((found != labels).sum())

    def corruption_errors(self) -> dict[str, float]:
        """The share misclassified under each corruption, of the test images of `robustness`."""
        settings = params.load().robustness
        order = np.random.default_rng(settings.seed).permutation(len(self.labels))
        sample = order[: settings.images]
        images, labels = self.images[sample], self.labels[sample]
        corrupted = {name: corrupt(images, name, settings.seed) for name in MNIST_C}
        return {name: self.errors(each, labels) / len(labels) for name, each in corrupted.items()}


def load(*splits: str) -> Images:
    """Images and labels of these splits, one after the other, in memory."""
    parts = [data.load_split(split) for split in splits]
    images = data.scaled(np.concatenate([part.images for part in parts]))
    return images, np.concatenate([part.labels for part in parts])


def preset(name: str) -> dict:
    """What params.yaml holds, with the changes of a preset; `default` has none."""
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    if name != "default":
        options = shlex.split((PRESETS / f"{name}.txt").read_text(encoding="utf-8"))
        for option in options[1::2]:  # the others are -S
            path, value = option.split("=", 1)
            *sections, key = path.split(".")
            section = values
            for each in sections:
                section = section[each]
            section[key] = yaml.safe_load(value)
    return values


def after_each_epoch(act: Callable) -> None:
    """From now on, each `fit` calls `act` with its model after each epoch.

    The pipeline's training takes no callbacks from outside, and this process trains once.
    """
    import keras

    fit = keras.Model.fit

    def noting(model: keras.Model, *args, callbacks: list | tuple = (), **options):
        note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: act(model))
        return fit(model, *args, callbacks=[note, *callbacks], **options)

    keras.Model.fit = noting


def multiply_adds(model) -> int:
    """Multiply-adds per image in the convolutions and fully connected layers of a training step.

    The output of a layer, its gradient by the weights and the one by its input take equally many;
    the last isn't needed for the first layer. Nothing else is counted as useful work.
    """
    counts = [
        int(np.prod(kernel.shape) * np.prod(layer.output.shape[1:-1]))
        for layer in model.layers
        for name in ("kernel", "depthwise_kernel", "pointwise_kernel")
        if (kernel := getattr(layer, name, None)) is not None
    ]
    return 3 * sum(counts) - counts[0]


def ours(name: str, seed: int, epochs: int | None, clock: Clock) -> dict:
    """The pipeline's training by a preset; its packaged model classifies the test images."""
    from stages import package, train
    from stages.network import saved
    from stages.prediction.predict import Predictor
    from stages.prediction.views import averaged_logits

    values = preset(name)
    if epochs:
        values["train"]["epochs"] = epochs
    settings, packaging = Train(**values["train"]), Package(**values["package"])
    training, validation = data.load_split("train"), data.load_split("validation")
    unseen = validation
    if not settings.patience:  # then nothing is validated on the clock
        unseen = validation._replace(images=validation.images[:0], labels=validation.labels[:0])

    def note(model) -> None:
        averaged = averaged_logits(model, packaging.average_shift)
        clock.epoch_ends(lambda: averaged.predict_on_batch)

    after_each_epoch(note)
    # What the stages write, a backup among it, must not meet that of the pipeline.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        clock.start()
        model = train.train(training, unseen, settings, seed, data.curves_of(seed))
        saved.save(model, data.trained_model(seed))
        package.package(seed, packaging, training, validation)
        probabilities, _ = Predictor(seed)(clock.images)
    return {
        "images": len(training.labels) // settings.batch_size * settings.batch_size,
        "multiply_adds": multiply_adds(model),
        "matrix_product_rate": matrix_product_rate(),
        "probabilities": probabilities.astype(float).tolist(),
    }


def fit(
    build: Callable,
    images: Images,
    batch_size: int,
    epochs: int,
    seed: int,
    clock: Clock,
    rate=1e-3,
) -> dict:
    """Train a Keras model with Adam, by compile and fit.

    Args:
        build: from a tensor of images, whatever their size, to one of probabilities.
        images, batch_size, epochs, seed, rate: what it is trained on, and how.
        clock: notes the errors after each epoch.
    """
    import keras

    after_each_epoch(lambda model: clock.epoch_ends(lambda: model.predict_on_batch))
    clock.start()
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(images[0].shape[1:])
    model = keras.Model(inputs, build(inputs))
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    model.fit(*images, batch_size=batch_size, epochs=epochs, verbose=0)
    return {"images": len(images[0]), "multiply_adds": multiply_adds(model)}


def stacked(layers: list) -> Callable:
    """Layers one after the other, as a function."""
    return lambda inputs: functools.reduce(lambda x, layer: layer(x), layers, inputs)


def two_convolutions() -> list:
    """How both of the Keras models begin."""
    from keras import layers

    return [
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2),
    ]


def notebook(seed: int, epochs: int | None, clock: Clock) -> dict:
    """The model of many notebooks, after F. Chollet, "Deep Learning with Python" (2017)."""
    from keras import layers

    stack = [
        *two_convolutions(),
        layers.Conv2D(64, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(clock.classes, activation="softmax"),
    ]
    return fit(stacked(stack), load("train", "validation"), 32, epochs or 10, seed, clock)


def keras_example(seed: int, epochs: int | None, clock: Clock) -> dict:
    """keras.io/examples/vision/mnist_convnet, which sets a tenth of the images aside."""
    from keras import layers

    stack = [
        *two_convolutions(),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(clock.classes, activation="softmax"),
    ]
    images, labels = load("train", "validation")
    kept = len(images) * 9 // 10
    return fit(stacked(stack), (images[:kept], labels[:kept]), 128, epochs or 15, seed, clock)


def linear(seed: int, epochs: int | None, clock: Clock) -> dict:
    """A linear classifier of pixels."""
    from keras import layers

    stack = [layers.Flatten(), layers.Dense(clock.classes, activation="softmax")]
    return fit(stacked(stack), load("train", "validation"), 32, epochs or 50, seed, clock)


def planets_guide(seed: int, epochs: int | None, clock: Clock) -> dict:
    """The model of the Swiss AI Center's "A guide to MLOps" (github.com/swiss-ai-center)."""
    from keras import layers

    stack = [
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(3),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(clock.classes, activation="softmax"),
    ]
    images = load("train", "validation")
    return fit(stacked(stack), images, 32, epochs or 5, seed, clock, rate=1e-4)


def keras_scratch(seed: int, epochs: int | None, clock: Clock) -> dict:
    """keras.io/examples/vision/image_classification_from_scratch: a small Xception."""
    from keras import layers

    def normalised(x):
        return layers.Activation("relu")(layers.BatchNormalization()(x))

    def build(inputs):
        x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(inputs))
        x = normalised(layers.Conv2D(128, 3, strides=2, padding="same")(x))
        before = x
        for size in (256, 512, 728):
            for _ in range(2):
                x = layers.Activation("relu")(x)
                x = layers.SeparableConv2D(size, 3, padding="same")(x)
                x = layers.BatchNormalization()(x)
            x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
            before = layers.Conv2D(size, 1, strides=2, padding="same")(before)
            x = before = layers.add([x, before])
        x = normalised(layers.SeparableConv2D(1024, 3, padding="same")(x))
        x = layers.Dropout(0.25)(layers.GlobalAveragePooling2D()(x))
        return layers.Dense(clock.classes, activation="softmax")(x)

    return fit(build, load("train", "validation"), 128, epochs or 25, seed, clock, rate=3e-4)


def pytorch_example(seed: int, epochs: int | None, clock: Clock) -> dict:
    """github.com/pytorch/examples, mnist; the data lie in memory as one tensor here."""
    import torch
    from torch import nn

    images, labels = map(torch.from_numpy, load("train", "validation"))

    def normalised(batch: torch.Tensor) -> torch.Tensor:
        return (batch.permute(0, 3, 1, 2) - 0.1307) / 0.3081  # channels first

    images, labels = normalised(images).contiguous(), labels.long()
    clock.start()
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
        nn.LogSoftmax(dim=1),
    )
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)

    def predict(batch: np.ndarray) -> np.ndarray:
        model.eval()
        with torch.no_grad():
            return model(normalised(torch.from_numpy(batch))).numpy()

    for _ in range(epochs or 14):
        model.train()
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.nll_loss(model(images[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
        clock.epoch_ends(lambda: predict)
    return {"images": len(images)}


def matrix_product_rate() -> float:
    """Multiply-adds per second of a float32 matrix product, the median of 20: the machine's own."""
    from stages.network.runtime import tf

    matrix = tf.random.normal((MATRIX, MATRIX))
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        tf.matmul(matrix, matrix).numpy()
        seconds.append(time.perf_counter() - started)
    return MATRIX**3 / float(np.median(seconds))


OTHERS = {
    "notebook": notebook,
    "keras_example": keras_example,
    "pytorch_example": pytorch_example,
    "linear": linear,
    "planets_guide": planets_guide,
    "keras_scratch": keras_scratch,
}
OURS = ("fast", "short", "default", "best", "photos")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contender", choices=[*OTHERS, *OURS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="fewer or more than its own")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for what was found")
    options = parser.parse_args()
    output = options.output.resolve()
    clock = Clock()
    if options.contender in OURS:
        found = ours(options.contender, options.seed, options.epochs, clock)
    else:
        found = OTHERS[options.contender](options.seed, options.epochs, clock)
    found |= {"curve": clock.curve, "corruptions": clock.corruption_errors()}
    output.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
