"""Train the model that finds digits (find.py), on scenes that are drawn by code (scenes.py).

    python -m apps.classify.learn [--scenes 4400] [--epochs 4] [--start finder.keras]
    python -m apps.classify.learn --accept

Its digits are MNIST's training images alone; no photograph of a digit is used. The model in Git
took five runs, each from where the one before ended: 4,400 scenes for 2 epochs, the same for 2
more at a rate of 0.0015, then for 2 epochs each, at 0.001, 2,000 other scenes (--seed 11), 2,400
(12) and 2,600 (13), the last two with more thin pens: 10,000 steps, some 80 CPU minutes.
It needs no training when the pipeline's data change. With --accept nothing is trained: what is
found in scenes of validation digits says how much the scores are worth.
"""

import argparse
import os
import tempfile
from multiprocessing import Pool

import cv2
import numpy as np
from scipy import ndimage
from tqdm import tqdm

import apps.classify
from apps.classify import find
from apps.classify.find import CELL, FILE, HALF, SIZES, UNIT, evened
from apps.classify.pictures import load
from apps.classify.preparation import prepare
from apps.classify.scenes import Scene, draw_scene, spread
from stages.base import data
from stages.base.files import atomic_output
from stages.base.quiet import silent_stderr
from stages.base.stage import UserError, run_stage

CROPS = 5  # of each scene, at several sizes
SIDE = 128  # pixels of a crop
SHOWN = 8, 64  # pixels of the digit that chooses its size
UNCLEAR = 9, 44  # pixels: a digit between these and SIZES may be found or not
VISIBLE = 0.6, 0.9  # of a digit at a crop's edge: less is none, more is one
BATCH, DECAY = 16, 1e-3
MEASURED = 150  # scenes of validation digits
FOUND = 0.35  # of what a box and a digit cover together, at least, for it to be found


def examples(seed: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops of one scene, and what is right: see `targets`."""
    rng = np.random.default_rng(seed)
    train = data.load_split("train")
    scene = draw_scene(rng, train.images[..., 0], train.labels)
    places = ndimage.find_objects(scene.owner)
    inputs, cells, inks = [], [], []
    for _ in range(CROPS):
        seen = [place for place in places if place]
        if seen:
            place = seen[rng.integers(len(seen))]
            middle = np.array([(part.start + part.stop) / 2 for part in place])
            factor = spread(rng, *SHOWN) / max(part.stop - part.start for part in place)
        else:
            middle, factor = rng.uniform(0, scene.picture.shape), spread(rng, 0.25, 2)
        factor = min(factor, 3, 600 / max(scene.picture.shape))
        size = [max(4, round(length * factor)) for length in reversed(scene.picture.shape)]
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        picture = cv2.resize(scene.picture, size, interpolation=how)
        owner = cv2.resize(scene.owner, size, interpolation=cv2.INTER_NEAREST)
        start = middle * factor - SIDE / 2 + rng.uniform(-0.4, 0.4, 2) * SIDE
        start = np.clip(start, 0, np.maximum(np.array(picture.shape) - SIDE, 0)).astype(int)
        cut = tuple(slice(each, each + SIDE) for each in start)
        crop = np.clip(np.rint(evened(picture)[cut] * 32), -127, 127).astype(np.int8)
        padding = [(0, SIDE - length) for length in crop.shape]
        right = targets(owner, cut)
        inputs.append(np.pad(crop, padding))
        cells.append(right[0])
        inks.append(right[1])
    return np.stack(inputs), np.stack(cells), np.stack(inks)


def targets(owner: np.ndarray, cut: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    """What the model shall say of a crop.

    Returns:
        cells: float16, shape (SIDE / CELL, SIDE / CELL, 7): whether a centre is there, 1 at it and
            less around it; how much that counts; the sides, and how much these count.
        ink: int8, shape (SIDE / HALF, SIDE / HALF): 1 for a digit's ink, -1 where it doesn't count.
    """
    number = SIDE // CELL
    cells = np.zeros((number, number, 7), np.float32)
    cells[..., 1] = 1
    inside = np.zeros((SIDE, SIDE), np.uint16)
    part = owner[cut]
    inside[: part.shape[0], : part.shape[1]] = part
    ink = np.zeros((SIDE, SIDE), np.int8)
    whole = np.bincount(owner.ravel())
    y, x = np.float32(np.indices((number, number)) + 0.5) * CELL
    for digit, place in enumerate(ndimage.find_objects(inside), 1):
        if not place:
            continue
        rows, columns = place
        height, width = rows.stop - rows.start, columns.stop - columns.start
        size = max(height, width)
        own = inside[place] == digit
        visible = own.sum() / whole[digit]
        down, across = (rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2
        at = int(down / CELL), int(across / CELL)
        clear = SIZES[0] <= size <= SIZES[1] and visible >= VISIBLE[1]
        if not clear:
            if UNCLEAR[0] < size < UNCLEAR[1] and visible > VISIBLE[0]:
                cells[rows.start // CELL : rows.stop // CELL + 1, :, 1][
                    :, columns.start // CELL : columns.stop // CELL + 1
                ] = 0
                ink[place][own] = -1
            continue
        ink[place][own] = 1
        wide, high = max(CELL / 2, width / 5), max(CELL / 2, height / 5)
        bell = np.exp(-(np.square((y - down) / high) + np.square((x - across) / wide)) / 2)
        bell[at] = 1
        near = bell > np.maximum(cells[..., 0], 0.4)
        edges = np.stack([x - columns.start, y - rows.start, columns.stop - x, rows.stop - y])
        cells[near, 2:6] = edges[:, near].T / UNIT
        cells[near, 6] = 1
        cells[..., 0] = np.maximum(cells[..., 0], bell)
        cells[at][1] = 1
    return cells.astype(np.float16), ink[HALF // 2 :: HALF, HALF // 2 :: HALF]


def network():
    """Convolutions at 1/2, 1/4 and 1/8 of the size, and back: a small U."""
    from stages.network.runtime import keras

    layers = keras.layers

    def convolve(x, filters, size=3, stride=1):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    inputs = keras.Input((None, None, 1))
    half = convolve(inputs, 16, 5, 2)
    quarter = convolve(convolve(half, 32, 3, 2), 32)
    x = convolve(quarter, 64, 3, 2)
    for _ in range(3):
        x = x + convolve(x, 64)
    x = layers.UpSampling2D()(convolve(x, 32, 1)) + quarter
    x = convolve(x, 32)
    head = convolve(x, 32)
    centres = layers.Conv2D(1, 1, bias_initializer=keras.initializers.Constant(-3))(head)
    sides = layers.Conv2D(4, 1, bias_initializer="ones")(head)
    x = layers.UpSampling2D()(convolve(x, 16, 1)) + half
    ink = layers.Conv2D(1, 3, padding="same")(convolve(x, 16))
    cells = layers.Concatenate(name="cells")([centres, sides])
    return keras.Model(inputs, {"cells": cells, "ink": layers.Identity(name="ink")(ink)})


def loss_of_cells(right, said):
    """Focal loss of the centres (as CenterNet's), absolute error of the sides; per digit."""
    from stages.network.runtime import tf

    centre, counts, sides, near = right[..., 0], right[..., 1], right[..., 2:6], right[..., 6]
    logit = said[..., 0]
    share = tf.sigmoid(logit)
    is_one = tf.cast(centre > 0.999, tf.float32)
    one = is_one * tf.square(1 - share) * tf.nn.softplus(-logit)
    none = (1 - is_one) * (1 - centre) ** 4 * tf.square(share) * tf.nn.softplus(logit)
    digits = tf.reduce_sum(is_one) + 1
    off = tf.reduce_sum(tf.abs(said[..., 1:] - sides), axis=-1) * near
    sides_loss = tf.reduce_sum(off) / (tf.reduce_sum(near) + 1)
    return tf.reduce_sum(counts * (one + none)) / digits + sides_loss


def loss_of_ink(right, said):
    from stages.network.runtime import tf

    right = tf.cast(right, tf.float32)
    counts = tf.cast(right >= 0, tf.float32)
    loss = tf.nn.sigmoid_cross_entropy_with_logits(tf.maximum(right, 0), said)
    return tf.reduce_sum(counts * loss) / tf.reduce_sum(counts)


def store(model) -> None:
    """Write the trained model as a LiteRT file, its weights in half precision."""
    from stages.network.runtime import keras, tf

    def find(images: tf.Tensor) -> dict[str, tf.Tensor]:
        said = model(images)
        centres, sides = tf.sigmoid(said["cells"][..., :1]), said["cells"][..., 1:]
        return {"centres": centres, "sides": sides, "ink": tf.sigmoid(said["ink"])}

    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = tf.TensorSpec((1, None, None, 1), tf.float32, name="picture")
    archive.add_endpoint("find", find, input_signature=[spec])
    with tempfile.TemporaryDirectory() as folder, silent_stderr():
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["find"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
        file = converter.convert()
    with atomic_output(FILE) as temporary:
        temporary.write_bytes(file)
    print(f"{FILE.name}: {len(file) / 1000:.0f} kB")


def draw(scenes: int, seed: int) -> list[np.ndarray]:
    """All crops and what is right of them, drawn by all cores."""
    cv2.setNumThreads(1)
    with Pool(os.cpu_count()) as pool:
        made = pool.imap(examples, ([seed, number] for number in range(scenes)), 16)
        parts = [*tqdm(made, "scenes", scenes, leave=False, disable=None)]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def train(options: argparse.Namespace) -> None:
    crops, cells, inks = draw(options.scenes, options.seed)
    print(f"{len(crops):,} crops, {int((cells[..., 0] == 1).sum()):,} digits")

    from stages.network.runtime import keras

    keras.utils.set_random_seed(options.seed)
    model = network()
    if options.start:
        model.set_weights(keras.models.load_model(options.start, compile=False).get_weights())
    steps = options.epochs * (len(crops) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, 0.01, warmup_target=options.rate, warmup_steps=steps // 20
    )
    losses = {"cells": loss_of_cells, "ink": loss_of_ink}
    model.compile(keras.optimizers.AdamW(rate, DECAY), losses, jit_compile=False)

    class Batches(keras.utils.PyDataset):
        """The crops in another order each epoch; of half of them, dark becomes light."""

        def __init__(self):
            super().__init__()
            self.rng = np.random.default_rng(options.seed)
            self.on_epoch_end()

        def __len__(self) -> int:
            return len(crops) // BATCH

        def __getitem__(self, number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
            chosen = np.sort(self.order[number * BATCH :][:BATCH])
            sign = self.rng.choice([-1, 1], (len(chosen), 1, 1, 1))
            right = {"cells": np.float32(cells[chosen]), "ink": inks[chosen][..., None]}
            return np.float32(crops[chosen][..., None] * sign) / 32, right

        def on_epoch_end(self) -> None:
            self.order = self.rng.permutation(len(crops))

    model.fit(Batches(), epochs=options.epochs, verbose=2)
    if options.keep:
        model.save(options.keep)
    store(model)


def seen_in(scene: Scene) -> tuple[np.ndarray, np.ndarray, int]:
    """What `accept` goes by, of each thing found in a scene; whether it is right; the digits."""
    [(picture, scale)] = load(scene.picture)
    boxes, scores, inks = find.find_digits(picture)
    places = ndimage.find_objects(scene.owner)
    digits = [number for number, place in enumerate(places) if place]
    corners = [[(p[1].start, p[0].start, p[1].stop, p[0].stop)] for p in places if p]
    truth = scale * np.concatenate([np.zeros((0, 4)), *corners])
    if not inks:
        return np.zeros((0, 3)), np.zeros(0, bool), len(digits)
    probabilities, accepted = apps.classify.predict(prepare(inks))
    right, free = np.zeros(len(boxes), bool), np.ones(len(digits), bool)
    for number, box in enumerate(boxes):
        common = find.shared(box, truth)
        cover = free * common / (find.area(box) + find.area(truth) - common)
        if cover.max(initial=0) > FOUND:
            free[at := cover.argmax()] = False
            right[number] = probabilities[number].argmax() == scene.labels[digits[at]]
    large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) > apps.classify.LARGE * max(picture.shape)
    odds = apps.classify.evidence(boxes, scores, probabilities.max(axis=1), accepted, large)
    return odds[accepted], right[accepted], len(digits)


def accept() -> None:
    """Print the WEIGHTS that `apps.classify` has, and what they are worth."""
    from sklearn.linear_model import LogisticRegression

    held = data.load_split("validation")
    images, labels = held.images[..., 0], held.labels
    scenes = (
        draw_scene(np.random.default_rng([7, number]), images, labels)
        for number in tqdm(range(MEASURED), "scenes", leave=False, disable=None)
    )
    odds, right, digits = zip(*map(seen_in, scenes), strict=True)
    odds, right = np.concatenate(odds), np.concatenate(right)
    fitted = LogisticRegression(C=10).fit(odds, right)
    print("WEIGHTS, OFFSET =", tuple(fitted.coef_[0].round(2)), fitted.intercept_[0].round(2))
    sure = fitted.predict_proba(odds)[:, 1]
    for least in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        chosen = right[sure >= least]
        print(f"from {least}: {chosen.mean():.3f} right, {chosen.sum() / sum(digits):.3f} of all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=4400)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-3, help="of learning, at its highest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", help="a .keras file to go on from")
    parser.add_argument("--keep", help="a .keras file to write, too")
    parser.add_argument("--accept", action="store_true", help="train nothing, fit the acceptance")
    options = parser.parse_args()
    info = data.load_split("train").info
    if not info.shows_digits or (info.height, info.width) != (28, 28):
        raise UserError(f"the finder learns from digits of 28×28 pixels, not from {info.name}")
    accept() if options.accept else train(options)


if __name__ == "__main__":
    run_stage(main)
