"""Images of the same picture are found, whatever was done to the file, and no others."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from stages.dataset import duplicates
from stages.dataset.picture import prepare
from stages.dataset.splits import digest


def photograph(seed: int, size: int = 300) -> Image.Image:
    """Blurred noise at several scales, as a photograph has structure at several."""
    rng, total = np.random.default_rng(seed), 0
    for few in (3, 8, 20, 60):
        layer = Image.fromarray(rng.integers(0, 256, (few, few, 3), np.uint8))
        total = total + np.asarray(layer.resize((size, size), Image.Resampling.BICUBIC), float)
    return Image.fromarray(np.uint8(total / 4))


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "jpeg", quality=quality)
    return Image.open(file)


CHANGES = {
    "the same": lambda picture: picture,
    "stored anew": lambda picture: jpeg(picture, 60),
    "half the size": lambda picture: picture.resize((150, 150), Image.Resampling.LANCZOS),
    "two thirds": lambda picture: picture.resize((200, 200), Image.Resampling.BICUBIC),
    "larger": lambda picture: picture.resize((500, 500), Image.Resampling.BICUBIC),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
    "all of it": lambda picture: jpeg(
        ImageEnhance.Brightness(picture.resize((200, 200))).enhance(0.95), 80
    ),
}


def groups_of(pictures: list[Image.Image], labels: list[int], size: int) -> np.ndarray:
    images = np.stack([prepare(picture, (size, size, 3), "crop") for picture in pictures])
    digests = np.array([digest(image.tobytes()) for image in images], np.uint64)
    return duplicates.groups(images, digests, np.array(labels))


@pytest.mark.parametrize("size", [28, 128])
def test_a_picture_is_known_again_whatever_was_done_to_its_file(size):
    others = [photograph(seed) for seed in range(40)]
    changed = [change(others[place]) for place, change in enumerate(CHANGES.values())]
    groups, alike = groups_of(others + changed, [0] * (40 + len(changed)), size)
    assert len(set(groups[:40])) == 40, "different pictures are taken for one"
    for place, change in enumerate(CHANGES):
        assert groups[40 + place] == groups[place], change
    assert not alike.any()


def test_images_that_are_alike_by_nature_are_no_one_picture():
    """A chain of frames, each like the next: as one group, a whole class would be on one side."""
    rng = np.random.default_rng(0)
    frames, drift = [], np.asarray(photograph(99, 64), float)
    for _ in range(30):
        drift = drift + rng.normal(0, 1.5, drift.shape)
        frames.append(Image.fromarray(np.uint8(drift.clip(0, 255))))
    others = [photograph(seed) for seed in range(30)]
    groups, alike = groups_of(frames + others, [0] * 30 + [1] * 30, 64)
    assert len(set(groups)) == 60
    assert alike.tolist() == [True] * 30 + [False] * 30


def test_copies_and_images_of_one_brightness_are_told_apart():
    blank = [Image.new("RGB", (64, 64), (level,) * 3) for level in (0, 0, 80, 255)]
    for pictures in (blank, [*blank, photograph(1)]):
        groups, _ = groups_of(pictures, [0] * len(pictures), 64)
        assert groups[0] == groups[1]
        assert len(set(groups)) == len(pictures) - 1
