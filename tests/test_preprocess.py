"""The stage preprocess, against an independent reading of its input; a refusal changes nothing."""

import gzip
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import change_params, contents
from sklearn.datasets import load_digits

from stages import preprocess
from stages.base.stage import UserError
from stages.dataset import idx
from stages.dataset.catalogue import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from stages.dataset.digits import write_digits

RAW = Path("data/raw")
PROCESSED = Path("data/processed")
SPLITS = ("train", "validation", "test")
ARRAYS = {f"{split}/{kind}.npy" for split in SPLITS for kind in ("images", "labels")}


def raw_images(name: str) -> np.ndarray:
    data = gzip.decompress((RAW / name).read_bytes())
    return np.frombuffer(data, np.uint8, offset=16).reshape(-1, 28, 28)


def raw_labels(name: str) -> np.ndarray:
    return np.frombuffer(gzip.decompress((RAW / name).read_bytes()), np.uint8, offset=8)


def result(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a split, as numpy alone reads them."""
    return np.load(PROCESSED / split / "images.npy"), np.load(PROCESSED / split / "labels.npy")


def scaled(images: np.ndarray) -> np.ndarray:
    return (images.astype(np.float64) / 255).astype(np.float32)[..., np.newaxis]


def positions(images: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Where each of `images` is in `among`, which holds no image twice."""
    index = {image.tobytes(): position for position, image in enumerate(among)}
    assert len(index) == len(among)
    return np.array([index[image.tobytes()] for image in images], int)


def write_training(images: np.ndarray, labels: np.ndarray) -> None:
    idx.write(RAW / TRAIN_IMAGES, images)
    idx.write(RAW / TRAIN_LABELS, labels)


def assert_refused(match: str) -> str:
    """The stage stops with one line and changes nothing in data/processed; return that line."""
    before = contents(PROCESSED)
    with pytest.raises(UserError, match=match) as caught:
        preprocess.main()
    assert "\n" not in str(caught.value)
    assert contents(PROCESSED) == before
    return str(caught.value)


@pytest.fixture(scope="module")
def digits_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four files of `digits`, made once."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return folder


@pytest.fixture
def digits(workspace: Path, digits_files: Path) -> Path:
    """A folder with the files of `digits` in data/raw."""
    shutil.copytree(digits_files, workspace / RAW)
    return workspace


@pytest.fixture
def processed(digits: Path) -> Path:
    """A folder in which the stage has run on `digits`."""
    preprocess.main()
    return digits


def test_digits_are_the_scans_at_two_and_a_half_times_their_size(digits):
    """Between two points of a scan there is a straight line; beyond the border there is black."""
    scan = load_digits().images[-360] / 16
    at = (np.arange(20) + 0.5) / 2.5 + 0.5  # in a scan with a border of zeros
    rows = np.stack([np.interp(at, range(10), line) for line in np.pad(scan, 1)])
    bigger = np.stack([np.interp(at, range(10), line) for line in rows.T]).T
    image = raw_images(TEST_IMAGES)[0]
    np.testing.assert_allclose(image[4:-4, 4:-4], 255 * bigger, atol=0.51)
    for name, count in ((TRAIN_IMAGES, 1437), (TEST_IMAGES, 360)):
        images = raw_images(name)
        assert (len(images), images.max()) == (count, 255)
        np.testing.assert_array_equal(
            np.pad(images[:, 4:-4, 4:-4], ((0, 0), (4, 4), (4, 4))), images
        )
        assert images.any(axis=(1, 2)).all()
    labels = [raw_labels(TRAIN_LABELS), raw_labels(TEST_LABELS)]
    np.testing.assert_array_equal(np.concatenate(labels), load_digits().target)
    assert len(labels[1]) == 360


def write_many() -> None:
    """More images than a block of the reader, each with its number in its first pixels."""
    numbers = np.arange(9001)
    images = np.zeros((9001, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = numbers // 256, numbers % 256
    write_training(images, (numbers * 7 % 10).astype(np.uint8))


@pytest.mark.parametrize(("size", "many"), [(0.1, False), (0, False), (0.1, True), (1, True)])
def test_arrays_are_the_bytes_of_the_files_scaled_in_order(size, many, digits):
    if many:
        write_many()
    change_params(digits, preprocess__validation_size=size)
    preprocess.main()
    assert set(contents(PROCESSED)) == ARRAYS
    train, validation, test = map(result, SPLITS)
    for images, labels in (train, validation, test):
        assert (images.dtype, labels.dtype) == (np.float32, np.uint8)
        assert images.shape == (len(labels), 28, 28, 1)
    np.testing.assert_array_equal(test[0], scaled(raw_images(TEST_IMAGES)))
    np.testing.assert_array_equal(test[1], raw_labels(TEST_LABELS))

    originals, count = scaled(raw_images(TRAIN_IMAGES)), len(raw_labels(TRAIN_LABELS))
    in_train, in_validation = positions(train[0], originals), positions(validation[0], originals)
    for (_, labels), members in ((train, in_train), (validation, in_validation)):
        assert (np.diff(members) > 0).all(), "the order of the file is lost"
        np.testing.assert_array_equal(labels, raw_labels(TRAIN_LABELS)[members])
    both = np.concatenate([in_train, in_validation])
    assert sorted(both) == list(range(count)), "an image is in both splits, or in neither"
    assert len(in_validation) == (round(count * size) if isinstance(size, float) else size)


@pytest.mark.parametrize("size", [0.1, 10, 1436])
@pytest.mark.parametrize("counts", [None, {0: 1337, 3: 99, 9: 1}], ids=["digits", "rare classes"])
def test_each_class_has_its_share_of_the_validation_images(counts, size, digits):
    if counts:
        labels = np.repeat(np.array([*counts], np.uint8), [*counts.values()])
        write_training(raw_images(TRAIN_IMAGES), labels)
    change_params(digits, preprocess__validation_size=size)
    preprocess.main()
    count = size if isinstance(size, int) else round(size * 1437)
    labels = result("validation")[1]
    assert len(labels) == count
    assert len(result("train")[1]) == 1437 - count
    exact = np.bincount(raw_labels(TRAIN_LABELS)) * count / 1437
    assert (abs(np.bincount(labels, minlength=10) - exact) < 1).all()


def test_validation_images_are_drawn_at_random(processed):
    """Not, say, the first of each class: writers stand together in the file."""
    members = positions(result("validation")[0], scaled(raw_images(TRAIN_IMAGES)))
    assert abs(members.mean() / 1437 - 0.5) < 0.1
    assert len(set(np.diff(members))) > 10


def test_same_seed_gives_the_same_bytes_and_another_seed_another_split(processed):
    first = contents(PROCESSED)
    preprocess.main()
    assert contents(PROCESSED) == first
    change_params(processed, preprocess__seed=1)
    preprocess.main()
    assert {name for name, data in contents(PROCESSED).items() if data != first[name]} == {
        name for name in ARRAYS if not name.startswith("test")
    }


@pytest.mark.parametrize(
    ("images", "labels"), [(TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)]
)
def test_files_that_are_missing_or_do_not_belong_together_are_refused(images, labels, processed):
    values, genuine = raw_labels(labels), (RAW / images).read_bytes()
    count = len(values)
    wrong = 1123 % count
    idx.write(RAW / labels, np.where(np.arange(count) == wrong, 10, values))
    assert f"index {wrong:,}" in assert_refused(f"{labels}: .*0 to 9, found 10")
    idx.write(RAW / labels, values[:-1])
    assert_refused(f"{labels}: expected {count:,} labels, one per image, found {count - 1:,}")
    idx.write(RAW / labels, values)
    for size in ((28, 27), (32, 32), (1, 784)):
        idx.write(RAW / images, np.zeros((count, *size), np.uint8))
        assert_refused(f"{images}: expected images of 28×28 pixels, found {size[0]}×{size[1]}")
    (RAW / images).write_bytes(genuine)
    for name in (images, labels):
        (RAW / name).rename("elsewhere")
        assert_refused(f"{name} cannot be loaded .*No such file")
        Path("elsewhere").rename(RAW / name)


@pytest.mark.parametrize("name", [TRAIN_IMAGES, TEST_IMAGES])
def test_damage_found_at_the_very_end_of_a_file_changes_nothing(name, processed):
    change_params(processed, preprocess__seed=1)  # so that new arrays would differ
    damaged = bytearray((RAW / name).read_bytes())
    damaged[-8] ^= 1  # the checksum: all images can be read before it
    (RAW / name).write_bytes(damaged)
    assert_refused(name)


def test_memory_needed_does_not_grow_with_the_images(digits):
    def peak(count: int) -> int:
        header = bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 28, 28)
        (RAW / TRAIN_IMAGES).write_bytes(gzip.compress(header + bytes(count * 28 * 28), 1))
        idx.write(RAW / TRAIN_LABELS, np.resize(np.arange(10, dtype=np.uint8), count))
        tracemalloc.start()
        try:
            preprocess.main()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # In bytes; as float32 the images are four times as many.
    assert peak(40_000) - peak(4_000) < 0.1 * 36_000 * 28 * 28
