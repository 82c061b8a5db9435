"""Training batches: each image carries its number as its brightness, so that a batch tells which
images it holds, in which order, and whether their labels have come along.
"""

from pathlib import Path

import numpy as np
import pytest

from stages.base import data
from stages.base.settings import Augment, Photometric, Train
from stages.network.batches import training_batches

COUNT, CLASSES, BATCH, EPOCHS = 53, 7, 8, 3
STEPS = COUNT // BATCH
NONE = Augment(rotation=0.0, shift=0.0, zoom=0.0, shear=0.0, flip=False)
FAMILIES = ("illumination", "strokes", "blur", "polarity", "noise", "outline")
PLAIN = Photometric(**dict.fromkeys(FAMILIES, 0.0), full_until=0.5, at_end=0.1)
SPOILT = PLAIN.model_copy(update={"illumination": 0.25, "noise": 0.25})
SOME = Augment(rotation=10.0, shift=2.0, zoom=0.1, shear=0.1, flip=False)

IMAGES = np.full((COUNT, 28, 28, 1), 0, np.uint8)
IMAGES[:, 4:-4, 4:-4] = (4 + 4 * np.arange(COUNT))[:, np.newaxis, np.newaxis, np.newaxis]
LABELS = (np.arange(COUNT) * 3 % CLASSES).astype(np.uint8)


def options(
    size: int, augment: Augment, photometric: Photometric = PLAIN, least_steps: int = 1
) -> Train:
    known = {"batch_size": size, "augment": augment, "photometric": photometric}
    return Train.model_construct(class_weights="none", least_steps=least_steps, **known)


def make(
    augment: Augment = NONE,
    seed: int = 0,
    epochs: int = EPOCHS,
    batch_size: int = BATCH,
    first: int = 0,
    photometric: Photometric = PLAIN,
) -> list[tuple[np.ndarray, np.ndarray]]:
    settings = options(batch_size, augment, photometric)
    dataset = training_batches(IMAGES, LABELS, CLASSES, settings, range(first, epochs), seed)
    return list(dataset.as_numpy_iterator())


def numbers(batches: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Which image each row of each batch is, by the brightness of its middle."""
    middle = np.stack([images[:, 14, 14, 0] for images, _ in batches])
    return np.rint(middle * 255 / 4).astype(int) - 1


def assert_same(first: list, second: list) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize(("batch_size", "epochs", "expected"), [(8, 3, 18), (53, 2, 2), (27, 2, 2)])
def test_there_are_as_many_batches_as_fill_up_in_each_epoch(batch_size, epochs, expected):
    batches = make(epochs=epochs, batch_size=batch_size)
    assert len(batches) == expected
    for images, labels in batches:
        assert (images.shape, labels.shape) == ((batch_size, 28, 28, 1), (batch_size, CLASSES))
        assert images.dtype == labels.dtype == np.float32


def test_an_epoch_of_few_images_visits_each_of_them_several_times():
    for size, least_steps in ((BATCH, 2 * STEPS + 2), (2 * COUNT + 1, 1)):
        settings = options(size, NONE, least_steps=least_steps)
        dataset = training_batches(IMAGES, LABELS, CLASSES, settings, range(2), seed=0)
        first, second = np.split(numbers(list(dataset.as_numpy_iterator())), 2)
        for epoch in (first, second):
            assert len(epoch) == 3 * COUNT // size >= least_steps
            visits = np.bincount(epoch.ravel(), minlength=COUNT)
            assert (visits.sum(), visits.max()) == (len(epoch) * size, 3)
        assert (first != second).any()


@pytest.mark.parametrize("augment", [NONE, SOME], ids=["plain", "augmented"])
def test_an_epoch_visits_each_image_at_most_once_and_labels_come_along(augment: Augment):
    batches = make(augment)
    for visited in numbers(batches).reshape(EPOCHS, -1):
        assert len(set(visited)) == len(visited) == STEPS * BATCH
        assert set(visited) <= set(range(COUNT))
    labels = np.stack([labels for _, labels in batches])
    np.testing.assert_array_equal(labels, np.eye(CLASSES)[LABELS[numbers(batches)]])


def test_images_that_sit_out_are_others_in_the_next_epoch():
    epochs = numbers(make(epochs=6)).reshape(6, -1)
    assert len({frozenset(range(COUNT)) - set(visited) for visited in epochs}) == 6


def test_images_are_unchanged_without_augmentation():
    batches = make(NONE)
    images = np.stack([images for images, _ in batches])
    np.testing.assert_array_equal(images, IMAGES[numbers(batches)] / np.float32(255))
    np.testing.assert_array_equal(numbers(make(SOME)), numbers(batches), "augmentation reorders")


def test_epochs_and_seeds_differ_in_order():
    orders = numbers([*make(), *make(seed=1)]).reshape(2 * EPOCHS, -1)
    for first in range(2 * EPOCHS):
        for second in range(first):
            assert (orders[first] == orders[second]).mean() < 0.3


def test_an_image_is_augmented_anew_in_each_step_epoch_and_seed():
    same = np.repeat(IMAGES[-1:], COUNT, axis=0)

    def shown(seed: int) -> set[bytes]:
        batches = training_batches(same, LABELS, CLASSES, options(BATCH, SOME), range(2), seed)
        return {image.tobytes() for images, _ in batches.as_numpy_iterator() for image in images}

    assert len(shown(0)) == 2 * STEPS * BATCH  # neither a step nor an epoch repeats one
    assert not shown(0) & shown(1)


def test_seed_epoch_and_step_and_nothing_else_decide_a_batch(tmp_path: Path):
    seed = 2**31 - 1
    batches = make(SOME, seed)
    assert_same(make(SOME, seed), batches)
    assert_same(make(SOME, seed, epochs=2), batches[: 2 * STEPS])
    assert_same(make(SOME, seed, first=1), batches[STEPS:])
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = data.load(tmp_path / "images.npy")
    dataset = training_batches(mapped, LABELS, CLASSES, options(BATCH, SOME), range(EPOCHS), seed)
    assert_same(list(dataset.skip(STEPS + 2).as_numpy_iterator()), batches[STEPS + 2 :])
    assert not dataset.options().autotune.enabled, "its thread is waited for, up to a minute"


def test_balanced_weights_let_each_class_count_alike_however_rare():
    labels = np.array([0] * 40 + [2] * 10 + [5] * 3, np.uint8)
    settings = options(COUNT, NONE).model_copy(update={"class_weights": "balanced"})
    [(_, found, weights)] = training_batches(
        IMAGES, labels, CLASSES, settings, range(1), 0
    ).as_numpy_iterator()
    totals = [weights[found.argmax(axis=1) == label].sum() for label in (0, 2, 5)]
    np.testing.assert_allclose(totals, COUNT / 3, rtol=1e-5)


def test_photometric_changes_fall_with_the_steps_up_to_the_last_epoch():
    plain, spoilt = make(), make(photometric=SPOILT)
    changed = [(a[0] != b[0]).any(axis=(1, 2, 3)) for a, b in zip(plain, spoilt, strict=True)]
    half = EPOCHS * STEPS // 2
    assert all(images[: BATCH // 2].all() for images in changed[:half])
    assert not any(images[BATCH // 2 :].any() for images in changed)
    assert np.mean([images[: BATCH // 2] for images in changed[half:]]) < 0.8
    assert_same(make(photometric=SPOILT, first=1), spoilt[STEPS:])


def anonymous_memory() -> float:
    """What this process owns, in 10⁶ bytes; pages of mapped files are not among it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024 / 1e6


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_memory_mapped_file_is_not_copied_into_memory(tmp_path: Path):
    count = 800_000  # 627 MB in a file with a hole, which takes no disk
    np.lib.format.open_memmap(
        tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=(count, 28, 28, 1)
    )
    mapped = data.load(tmp_path / "images.npy")
    labels = np.zeros(count, np.uint8)
    make()  # what TensorFlow takes at its first use
    before = anonymous_memory()
    dataset = training_batches(mapped, labels, CLASSES, options(BATCH, NONE), range(1), 0)
    for _ in dataset.take(20):
        assert anonymous_memory() - before < 0.2 * mapped.nbytes / 1e6
