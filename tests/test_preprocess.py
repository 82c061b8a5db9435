"""The stage preprocess, against an independent reading of its input; a refusal changes nothing."""

import csv
import gzip
import json
import re
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import change_params, contents
from PIL import Image
from sklearn.datasets import load_digits

from stages import preprocess
from stages.base import data
from stages.base.stage import UserError
from stages.dataset import digits, idx

RAW, PROCESSED = Path("data/raw"), Path("data/processed")
SPLITS = ("train", "validation", "test")
NAMES = [name(split) for split in ("train", "test") for name in (idx.images_file, idx.labels_file)]


def raw_images(split: str) -> np.ndarray:
    content = gzip.decompress((RAW / idx.images_file(split)).read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)


def raw_labels(split: str) -> np.ndarray:
    content = gzip.decompress((RAW / idx.labels_file(split)).read_bytes())
    return np.frombuffer(content, np.uint8, offset=8)


def result(split: str) -> list[np.ndarray]:
    """Images, labels and numbers of a split, as numpy alone reads them."""
    return [np.load(PROCESSED / split / f"{name}.npy") for name in ("images", "labels", "numbers")]


def write_raw(images: dict[str, np.ndarray], labels: dict[str, np.ndarray], **info) -> None:
    """The files of a dataset of ten classes, grey or in colour."""
    shape = images["train"].shape[1:]
    channels = shape[2] if len(shape) > 2 else 1
    for split in images:
        idx.write(RAW / idx.images_file(split, channels), images[split])
        idx.write(RAW / idx.labels_file(split), labels[split])
    found = digits.INFO.model_copy(
        update={
            "height": shape[0],
            "width": shape[1],
            "channels": channels,
            "images": {split: len(part) for split, part in images.items()},
            **info,
        }
    )
    data.write_info(found, RAW)


def assert_refused(match: str) -> None:
    """The stage stops with one line and changes nothing."""
    before = contents(Path())
    with pytest.raises(UserError, match=match) as caught:
        preprocess.main()
    assert "\n" not in str(caught.value)
    assert contents(Path()) == before


@pytest.fixture(scope="module")
def digits_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `digits`, made once."""
    folder = tmp_path_factory.mktemp("digits")
    digits.write_digits(folder)
    data.write_info(digits.INFO, folder)
    return folder


@pytest.fixture
def raw(workspace: Path, digits_files: Path) -> Path:
    """A folder with the files of `digits` in data/raw."""
    shutil.copytree(digits_files, workspace / RAW)
    return workspace


def test_digits_are_the_scans_at_two_and_a_half_times_their_size(raw):
    """Between two points of a scan there is a straight line; beyond the border there is black."""
    scan = load_digits().images[-360] / 16
    at = (np.arange(20) + 0.5) / 2.5 + 0.5  # in a scan with a border of zeros
    rows = np.stack([np.interp(at, range(10), line) for line in np.pad(scan, 1)])
    bigger = np.stack([np.interp(at, range(10), line) for line in rows.T]).T
    image = raw_images("test")[0]
    np.testing.assert_allclose(image[4:-4, 4:-4], 255 * bigger, atol=0.51)
    for split, count in (("train", 1437), ("test", 360)):
        images = raw_images(split)
        assert (len(images), images.max()) == (count, 255)
        assert images.any(axis=(1, 2)).all()
    labels = np.concatenate([raw_labels("train"), raw_labels("test")])
    np.testing.assert_array_equal(labels, load_digits().target)


@pytest.mark.parametrize("size", [0.1, 0.0])
def test_arrays_are_the_bytes_of_the_files_each_image_in_one_split(size, raw):
    change_params(raw, preprocess__validation_size=size)
    preprocess.main()
    members = {}
    for split in SPLITS:
        images, labels, members[split] = result(split)
        source = "test" if split == "test" else "train"
        assert (images.dtype, labels.dtype) == (np.uint8, np.uint8)
        assert images.shape == (len(labels), 28, 28, 1)
        np.testing.assert_array_equal(images[..., 0], raw_images(source)[members[split]])
        np.testing.assert_array_equal(labels, raw_labels(source)[members[split]])
        info = data.load_info(PROCESSED / split)
        assert info.images == {split: len(labels)}
    assert sorted(members["test"]) == [*range(360)]
    assert sorted([*members["train"], *members["validation"]]) == [*range(1437)]
    assert abs(len(members["validation"]) / 1437 - size) < 0.03


def test_images_of_any_size_in_colour_without_test_files(raw):
    """More than a block of the reader."""
    shutil.rmtree(RAW)
    images = np.random.default_rng(0).integers(0, 256, (9001, 5, 4, 3), np.uint8)
    write_raw({"train": images}, {"train": np.arange(9001) * 7 % 10})
    preprocess.main()
    members = []
    for split in SPLITS:
        found, labels, numbers = result(split)
        np.testing.assert_array_equal(found, images[numbers])
        np.testing.assert_array_equal(labels, numbers * 7 % 10)
        members += [*numbers]
    assert sorted(members) == [*range(9001)]
    assert abs(len(labels) / 9001 - 0.2) < 0.02
    change_params(raw, preprocess__test_size=0)
    assert_refused("preprocess.test_size: expected more than 0")


def test_same_seed_gives_the_same_bytes_in_whatever_order_images_come(raw):
    preprocess.main()
    first = contents(Path())
    preprocess.main()
    assert contents(Path()) == first
    order = np.random.default_rng(0).permutation(1437)
    images, labels = raw_images("train"), raw_labels("train")
    idx.write(RAW / idx.images_file("train"), images[order])
    idx.write(RAW / idx.labels_file("train"), labels[order])
    preprocess.main()
    arrays = {
        f"data/processed/{split}/{kind}.npy" for split in SPLITS for kind in ("images", "labels")
    }
    second = contents(Path())
    assert {name: second[name] for name in arrays} == {name: first[name] for name in arrays}
    change_params(raw, preprocess__seed=1)
    preprocess.main()
    third = contents(Path())
    assert {name for name in arrays if third[name] != second[name]} == {
        name for name in arrays if "/test/" not in name
    }


@pytest.mark.parametrize("split", ["train", "test"])
def test_files_that_are_missing_or_do_not_belong_together_are_refused(split, raw):
    preprocess.main()
    images, labels = idx.images_file(split), idx.labels_file(split)
    values, genuine = raw_labels(split), (RAW / images).read_bytes()
    count = len(values)
    idx.write(RAW / labels, np.where(np.arange(count) == 123, 10, values))
    assert_refused(f"{labels}: .*0 to 9, found 10 at number 123")
    idx.write(RAW / labels, values[:-1])
    assert_refused(f"{labels}: expected {count:,} labels, one per image, found .{count - 1}")
    idx.write(RAW / labels, values)
    for size in ((28, 27), (32, 32), (1, 784), (28, 28, 3)):
        idx.write(RAW / images, np.zeros((count, *size), np.uint8))
        assert_refused(re.escape(f"{images}: dataset.json says ({count}, 28, 28), found"))
    (RAW / images).write_bytes(genuine)
    for name in (images, labels):
        (RAW / name).rename("elsewhere")
        assert_refused(f"{name} not found: run `dvc repro`")
        Path("elsewhere").rename(RAW / name)
    (RAW / "dataset.json").write_text("{}")
    assert_refused("dataset.json cannot be loaded .*download")


@pytest.mark.parametrize("split", ["train", "test"])
def test_damage_found_at_the_very_end_of_a_file_changes_nothing(split, raw):
    preprocess.main()
    change_params(raw, preprocess__seed=1)  # so that new arrays would differ
    damaged = bytearray((RAW / idx.images_file(split)).read_bytes())
    damaged[-8] ^= 1  # the checksum: all images can be read before it
    (RAW / idx.images_file(split)).write_bytes(damaged)
    assert_refused(idx.images_file(split))


@pytest.mark.slow
def test_memory_needed_hardly_grows_with_the_images(raw):
    def peak(count: int) -> int:
        header = bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 40, 40)
        noise = np.random.default_rng(0).bytes(count * 40 * 40)
        (RAW / idx.images_file("train")).write_bytes(gzip.compress(header + noise, 0))
        idx.write(RAW / idx.labels_file("train"), np.resize(np.arange(10), count))
        (RAW / idx.images_file("test")).unlink(missing_ok=True)
        images = {"train": count}
        data.write_info(
            digits.INFO.model_copy(update={"height": 40, "width": 40, "images": images}), RAW
        )
        tracemalloc.start()
        try:
            preprocess.main()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(12_000) - peak(6_000) < 0.5 * 6_000 * 40 * 40  # bytes


def textured(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    few = [Image.fromarray(each) for each in rng.integers(0, 256, (count, 8, 8, 3), np.uint8)]
    return np.stack([np.asarray(each.resize((32, 32), Image.Resampling.BICUBIC)) for each in few])


def test_the_look_tells_of_classes_copies_and_test_images_seen_before(raw, capsys):
    """40 is a copy, 41 a brighter one, 42 one in another class; the test has 0 and 1, too."""
    shutil.rmtree(RAW)
    images = textured(90)
    brighter = np.uint8(images[11] * 0.9 + 10)
    train = np.concatenate([images[:40], images[10:11], brighter[np.newaxis], images[12:13]])
    labels = np.arange(43) % 2
    labels[[40, 41, 42]] = labels[10], labels[11], 1 - labels[12]
    write_raw(
        {"train": train, "test": np.concatenate([images[80:], images[:2]])},
        {"train": labels, "test": np.arange(12) % 2},
        classes=("cat", "dog"),
        name="pets",
    )
    change_params(raw, preprocess__validation_size=0.2)
    preprocess.main()
    places = {}
    for split in SPLITS:
        for number in result(split)[2]:
            places[f"{'test' if split == 'test' else 'train'} {number}"] = split
    for one, other in ((10, 40), (11, 41), (12, 42)):
        assert places[f"train {one}"] == places[f"train {other}"]
    numbers = result("test")[2]
    np.testing.assert_array_equal(np.load(PROCESSED / "test/seen.npy"), numbers >= 10)

    with open(PROCESSED / "problems.csv", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    pairs = {frozenset((row["file"], row["other_file"])): row for row in rows}
    expected = [("train 12", "train 42"), ("test 10", "train 0"), ("test 11", "train 1")]
    expected += [("train 10", "train 40"), ("train 11", "train 41")]
    assert {*pairs} == {*map(frozenset, expected)}
    assert rows[0]["class"] != rows[0]["other_class"], "what is most likely wrong comes first"
    assert pairs[frozenset(expected[4])]["problem"] == "same picture as another"
    assert pairs[frozenset(expected[3])]["problem"] == "same pixels as another"
    found = json.loads(Path("metrics/data.json").read_text())
    assert (found["same_pictures"], found["in_two_classes"], found["test_images_seen"]) == (5, 1, 2)
    told = capsys.readouterr().out
    assert "among training or validation images, too: 2\n" in told
    with open("metrics/data.csv", encoding="utf-8") as file:
        table = [*csv.DictReader(file)]
    assert [row["class"] for row in table] == ["cat", "dog"]
    assert sum(int(row[split]) for row in table for split in SPLITS) == 55
    with Image.open("plots/data/classes.png") as picture:
        assert len(picture.convert("RGB").getcolors(10**6)) > 50, "no samples are drawn"
