"""The stage `preprocess`: arrays as the files say, honest splits, and nothing half-done."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import change_params, contents

from stages import preprocess
from stages.base import data
from stages.base.data import RAW, DatasetInfo, load_split, write_info
from stages.base.stage import UserError
from stages.dataset import idx

SHAPE = (20, 24, 3)  # no dataset's
CLASSES = ("a", "b c", "ü")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (600, *SHAPE), np.uint8)
LABELS = RNG.choice(3, 600, p=[0.6, 0.35, 0.05]).astype(np.uint8)


def write_raw(images: np.ndarray, labels: np.ndarray, tests: int = 0, **values) -> None:
    """The files of a dataset, the last `tests` images being for the test."""
    counts = {"train": len(labels) - tests} | ({"test": tests} if tests else {})
    height, width, *channels = images.shape[1:]
    known = {"name": "made", "subject": "noise", "licence": "none", "classes": CLASSES}
    known |= {"height": height, "width": width, "channels": (channels or [1])[0], "images": counts}
    start = 0
    for split, count in counts.items():
        part = slice(start, start + count)
        idx.write(RAW / idx.images_file(split, known["channels"]), images[part])
        idx.write(RAW / idx.labels_file(split), labels[part])
        start += count
    write_info(DatasetInfo(**known | values), RAW)


def members() -> dict[str, set[bytes]]:
    """By split, its images."""
    return {split: {image.tobytes() for image in load_split(split).images} for split in data.SPLITS}


@pytest.mark.parametrize(("shape", "tests"), [(SHAPE, 0), ((28, 28), 100), ((5, 3), 1)])
def test_each_image_is_in_one_split_with_its_label_and_its_number(workspace, shape, tests):
    images = RNG.integers(0, 256, (300, *shape), np.uint8)
    labels = LABELS[:300]
    write_raw(images, labels, tests, disputed=(0,) if tests else ())
    preprocess.main()
    seen = []
    for split in data.SPLITS:
        found = load_split(split)
        source = len(labels) - tests if tests and split == "test" else 0
        expected = images[source + found.numbers]
        np.testing.assert_array_equal(found.images.reshape(expected.shape), expected)
        np.testing.assert_array_equal(found.labels, labels[source + found.numbers])
        assert found.images.dtype == found.labels.dtype == np.uint8
        assert found.images.ndim == 4
        assert found.info.images == {split: len(found.labels)}
        assert found.info.classes == CLASSES
        assert found.info.disputed == ((0,) if tests and split == "test" else ())
        seen += [source + number for number in found.numbers]
    assert sorted(seen) == list(range(300))


def test_order_and_names_in_the_source_change_no_image_and_no_label(workspace):
    write_raw(IMAGES, LABELS)
    preprocess.main()
    before = contents(Path("data/processed"), "numbers.npy")
    order = RNG.permutation(len(LABELS))
    write_raw(IMAGES[order], LABELS[order])
    preprocess.main()
    assert contents(Path("data/processed"), "numbers.npy") == before


def test_splits_have_their_shares_of_each_class_and_more_images_move_none(workspace):
    write_raw(IMAGES, LABELS)
    preprocess.main()
    before = members()
    for label in range(3):
        share = (load_split("test").labels == label).sum() / (label == LABELS).sum()
        assert share == pytest.approx(0.2, abs=0.15)
    more = RNG.integers(0, 256, (40, *SHAPE), np.uint8)
    write_raw(np.concatenate([more, IMAGES]), np.append(LABELS[:40], LABELS))
    preprocess.main()
    after = members()
    assert all(before[split] <= after[split] for split in data.SPLITS)
    change_params(workspace, preprocess__seed=1)
    preprocess.main()
    assert members()["test"] != after["test"]


def test_copies_of_an_image_are_on_one_side(workspace):
    write_raw(np.concatenate([IMAGES, IMAGES[:300]]), np.append(LABELS, LABELS[:300]))
    preprocess.main()
    splits = list(members().values())
    assert not splits[0] & splits[1]
    assert not (splits[0] | splits[1]) & splits[2]


def test_a_rare_class_is_in_each_split_or_is_named(workspace):
    labels = np.array([0, 1] * 100 + [2] * 3, np.uint8)
    write_raw(IMAGES[:203], labels)
    preprocess.main()
    assert all(set(load_split(split).labels) == {0, 1, 2} for split in data.SPLITS)
    write_raw(IMAGES[:202], labels[:202])
    with pytest.raises(UserError, match=r"class 'ü': expected at least 3 .* found 2"):
        preprocess.main()


def test_without_validation_or_test_images(workspace):
    write_raw(IMAGES, LABELS)
    change_params(workspace, preprocess__validation_size=0)
    preprocess.main()
    assert load_split("validation").images.shape == (0, *SHAPE)
    change_params(workspace, preprocess__test_size=0)
    with pytest.raises(UserError, match="test_size: expected more than 0"):
        preprocess.main()


def wrong_count() -> None:
    info = data.load_info(RAW)
    write_info(info.model_copy(update={"images": {"train": 599}}), RAW)


def wrong_size() -> None:
    write_raw(IMAGES, LABELS, height=24, width=20)


def too_few_labels() -> None:
    idx.write(RAW / idx.labels_file("train"), LABELS[:-1])


def unknown_label() -> None:
    idx.write(RAW / idx.labels_file("train"), np.where(np.arange(600) == 7, 3, LABELS))


def truncated() -> None:
    path = RAW / idx.images_file("train", 3)
    path.write_bytes(path.read_bytes()[:-100])


def missing() -> None:
    (RAW / "dataset.json").unlink()


def not_json() -> None:
    (RAW / "dataset.json").write_text(json.dumps({"name": 5}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_count, r"dataset.json says \(599, .* found the dimensions \(600, 20, 24, 3\)"),
        (wrong_size, "dataset.json says"),
        (too_few_labels, "expected 600 labels, one per image, found"),
        (unknown_label, "expected labels from 0 to 2, found 3 at number 7"),
        (truncated, "train-images-idx4-ubyte.gz cannot be loaded"),
        (missing, "dataset.json cannot be loaded"),
        (not_json, "dataset.json cannot be loaded"),
    ],
)
def test_files_that_do_not_belong_together_are_named_and_change_nothing(workspace, spoil, message):
    write_raw(IMAGES, LABELS)
    preprocess.main()
    before = contents(Path("data/processed"))
    spoil()
    with pytest.raises(UserError, match=message):
        preprocess.main()
    assert contents(Path("data/processed")) == before
