"""A folder of pictures as a dataset, through the stages download and preprocess."""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from conftest import change_params, contents
from PIL import Image

from stages import download, preprocess
from stages.base import data
from stages.base.stage import UserError
from stages.dataset import digits, folder, idx
from stages.dataset.picture import opened, prepare

OWN = Path("data/own/things")
RAW, PROCESSED = Path("data/raw"), Path("data/processed")


def scene(seed: int, height: int = 40, width: int = 40) -> Image.Image:
    """A colour picture like no other."""
    few = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def put(files: dict[str, bytes], where: Path = OWN) -> None:
    for name, content in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(content)


def classes_of(*names: str, count: int = 5) -> dict[str, bytes]:
    return {
        f"{name}/{number}.png": encoded(scene(1000 * place + number))
        for place, name in enumerate(names)
        for number in range(count)
    }


@pytest.fixture
def own(workspace: Path) -> Path:
    """A folder with params.yaml, set to the pictures in data/own/things."""
    (workspace / OWN).mkdir(parents=True)
    change_params(workspace, download__dataset="things", download__size=16)
    return workspace


def loaded(split: str = "train") -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images, class names and file names of a split of data/raw, after `download`."""
    download.main()
    info = data.load_info(RAW)
    images = np.concatenate([*idx.read_blocks(RAW / idx.images_file(split, info.channels))])
    labels = np.concatenate([*idx.read_blocks(RAW / idx.labels_file(split))])
    names = json.loads((RAW / "files.json").read_text(encoding="utf-8"))["images"][split]
    return images, [info.classes[label] for label in labels], names


def quadrants() -> np.ndarray:
    """64×64 pixels: red, green above blue, grey; 16×16 of it are the same four fields."""
    fields = np.array([[[200, 40, 40], [40, 200, 40]], [[40, 40, 200], [90, 90, 90]]], np.uint8)
    return fields.repeat(32, axis=0).repeat(32, axis=1)


def heic(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(picture).save(file, quality=95)
    return file.getvalue()


def transparent(picture: Image.Image) -> Image.Image:
    """The last field is black ink of 165/255 opacity on nothing: grey on white."""
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(165, (32, 32, 64, 64))
    picture = picture.convert("RGBA")
    picture.paste((0, 0, 0, 255), (32, 32, 64, 64))
    picture.putalpha(alpha)
    return picture


def animated(picture: Image.Image) -> bytes:
    return encoded(picture, "gif", save_all=True, append_images=[Image.new("RGB", (64, 64))])


def turned(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned by 90 degrees clockwise
    return encoded(picture.transpose(Image.Transpose.ROTATE_90), "jpeg", quality=95, exif=exif)


COLOUR: dict[str, Callable[[Image.Image], bytes]] = {
    "jpg": lambda picture: encoded(picture, "jpeg", quality=95),
    "JPEG": lambda picture: encoded(picture.convert("CMYK"), "jpeg", quality=95),
    "png": lambda picture: encoded(picture.quantize(8)),
    "transparent.png": lambda picture: encoded(transparent(picture)),
    "webp": lambda picture: encoded(picture, "webp", lossless=True),
    "bmp": lambda picture: encoded(picture, "bmp"),
    "gif": animated,
    "tif": lambda picture: encoded(picture, "tiff"),
    "heic": heic,
    "turned.jpg": turned,
    "without suffix": lambda picture: encoded(picture, "jpeg", quality=95),
}
GREY: dict[str, Callable[[Image.Image], bytes]] = {
    "png": lambda picture: encoded(picture.convert("L")),
    "16.png": lambda picture: encoded(
        Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257)
    ),
    "jpg": lambda picture: encoded(picture.convert("L"), "jpeg", quality=95),
    "colour.jpg": lambda picture: encoded(picture.convert("L").convert("RGB"), "jpeg"),
    "float.tif": lambda picture: encoded(
        Image.fromarray(np.asarray(picture.convert("L"), np.float32) / 255), "tiff"
    ),
}


@pytest.mark.parametrize("kinds", [COLOUR, GREY], ids=["colour", "grey"])
def test_every_kind_of_file_becomes_the_same_image(kinds, own):
    picture = Image.fromarray(quadrants())
    for label in "ab":
        for name, make in kinds.items():
            suffix = name if name == "without suffix" else f"1.{name}"
            put({f"{label}/{suffix}": make(picture)})
    images, _, names = loaded()
    assert len(names) == 2 * len(kinds)
    expected = quadrants().reshape(16, 4, 16, 4, 3).mean((1, 3))
    if kinds is GREY:
        expected = np.asarray(picture.convert("L").reduce(4), float)
    inner = np.ones((16, 16), bool)  # lossy formats smear the edges of the fields
    inner[6:10] = inner[:, 6:10] = False
    for image, name in zip(images, names, strict=True):
        assert image.shape == expected.shape, name
        assert abs(image[inner] - expected[inner]).max() < 14, name


@pytest.mark.parametrize("shape", [(40, 80), (80, 40), (7, 200), (3, 3)], ids=str)
def test_a_picture_of_any_shape_is_cropped_or_padded_to_a_square(shape, own):
    """The middle keeps its colour; cropped, nothing else shows; padded, all of it does."""
    height, width = shape
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0], pixels[:, width // 2 :, 2] = 255, 255
    put({f"{label}/1.png": encoded(Image.fromarray(pixels)) for label in "ab"})
    put({f"{label}/2.png": encoded(scene(1)) for label in "ab"})
    for fit in ("crop", "pad"):
        change_params(own, download__fit=fit)
        image = loaded()[0][0].astype(int)
        assert image.shape == (16, 16, 3)
        assert image[8, 0, 0] > 200 > 50 > image[8, 0, 2]
        assert image[8, -1, 2] > 200 > 50 > image[8, -1, 0]
        assert data.load_info(RAW).fit == fit


def test_shrinking_averages_areas(own):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    put({f"{label}/1.png": encoded(Image.fromarray(pixels)) for label in "ab"})
    exact = pixels.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert abs(loaded()[0][0] - exact).max() <= 1


@pytest.mark.parametrize("colour", [True, False, "auto"])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_training_file_gives_the_training_image(fit, colour, own):
    put(classes_of("a", "b", count=3))
    put(
        {
            "a/wide.jpg": encoded(scene(7, 90, 200), "jpeg"),
            "b/grey.png": encoded(scene(8).convert("L")),
        }
    )
    change_params(own, download__fit=fit, download__colour=colour)
    images, _, names = loaded()
    info = data.load_info(RAW)
    assert info.channels == (1 if colour is False else 3)
    for image, name in zip(images, names, strict=True):
        with opened(OWN / name) as picture:
            np.testing.assert_array_equal(
                prepare(picture, info.shape, info.fit), image.reshape(info.shape)
            )


def test_pictures_that_have_the_size_end_in_the_same_arrays_as_idx_files(own, monkeypatch):
    """As MNIST's images do, stored as PNG in folders per class; more than a block of them."""
    info = digits.INFO.model_copy(update={"images": {"train": 300, "test": 40}})
    noise = np.random.default_rng(0).integers(0, 256, (300, 28, 28), np.uint8)

    def write(where: Path) -> None:
        for split, count in info.images.items():
            idx.write(where / idx.images_file(split), noise[-count:])
            idx.write(where / idx.labels_file(split), np.arange(count) % 10)

    monkeypatch.setattr(digits, "INFO", info)
    monkeypatch.setattr(digits, "write_digits", write)
    change_params(own, download__dataset="digits", download__size=28)
    download.main()
    preprocess.main()
    for split in ("train", "test"):
        images = np.concatenate([*idx.read_blocks(RAW / idx.images_file(split))])
        labels = np.concatenate([*idx.read_blocks(RAW / idx.labels_file(split))])
        put(
            {
                f"{split}/{label}/{number}.png": encoded(Image.fromarray(image), compress_level=1)
                for number, (image, label) in enumerate(zip(images, labels, strict=True))
            }
        )
    before = contents(PROCESSED)
    change_params(own, download__dataset="things")
    download.main()
    preprocess.main()
    after = contents(PROCESSED)
    for name in (f"{s}/{kind}.npy" for s in data.SPLITS for kind in ("images", "labels")):
        assert after[name] == before[name], name
    assert data.load_info(PROCESSED / "test").classes == tuple("0123456789")
    change_params(own, download__dataset="digits")  # back, with what is left of the pictures
    download.main()
    preprocess.main()
    assert contents(PROCESSED)["test/numbers.npy"] == before["test/numbers.npy"]


def test_classes_are_found_whatever_lies_about_and_however_folders_are_called(own, capsys):
    names = ["2", "10", "rosa b", "Ägypten, süß & scharf"]
    put(classes_of(*names, count=2))
    put({f"{names[0]}/2023/june/{number}.png": encoded(scene(50 + number)) for number in range(2)})
    junk = ("._1.png", "Thumbs.db", ".DS_Store", ".ipynb_checkpoints/1.png", "notes.txt")
    put({f"{names[1]}/{name}": b"no picture" for name in junk})
    put({".git/config": b"", "__MACOSX/2/1.png": b"", "README.md": b"", "top.png": b""})
    elsewhere = own / "elsewhere"
    put({"3.png": encoded(scene(60)), "far.png": encoded(scene(61))}, elsewhere)
    (OWN / names[3] / "linked").symlink_to(elsewhere, target_is_directory=True)
    (OWN / names[2] / "linked.png").symlink_to(elsewhere / "far.png")
    before = contents(OWN)
    _, labels, files = loaded()
    assert "DVC follows no links to folders" in capsys.readouterr().out
    assert data.load_info(RAW).classes == tuple(names)
    assert [labels.count(name) for name in names] == [4, 2, 3, 4]
    assert set(files) >= {f"{names[0]}/2023/june/0.png", f"{names[3]}/linked/3.png"}
    assert contents(OWN) == before


def test_splits_of_the_users_own_are_kept(own):
    for place, split in enumerate(("Train", "valid", "test")):
        for number in range(4):
            for label in "ab":
                seed = 100 * place + 10 * number + ord(label)
                put({f"{split}/{label}/{number}.png": encoded(scene(seed))})
    download.main()
    preprocess.main()
    for split in data.SPLITS:
        assert data.load_info(PROCESSED / split).images == {split: 8}
    names = json.loads((PROCESSED / "test/files.json").read_text())
    images = np.load(PROCESSED / "test/images.npy")
    for name, image in zip(names, images, strict=True):
        assert name.startswith("test/")
        with opened(OWN / name) as picture:
            np.testing.assert_array_equal(prepare(picture, (16, 16, 3), "crop"), image)


def test_a_new_name_changes_no_array_and_a_new_picture_moves_no_other(own):
    def sides() -> dict[bytes, str]:
        download.main()
        preprocess.main()
        parts = {split: np.load(PROCESSED / split / "images.npy") for split in data.SPLITS}
        return {image.tobytes(): split for split, part in parts.items() for image in part}

    put(classes_of("a", "b", count=30))
    first, arrays = sides(), contents(PROCESSED, "files.json", "problems.csv")
    (OWN / "a/0.png").rename(OWN / "a/zzz.png")
    assert sides() == first
    assert contents(PROCESSED, "files.json", "problems.csv") == arrays
    put({"a/new.png": encoded(scene(5000))})
    second = sides()
    assert len(second) == len(first) + 1
    assert first.items() <= second.items()


def test_all_cores_make_the_same_files_as_one(own, monkeypatch):
    put(classes_of("a", "b", count=30))
    download.main()
    one = contents(RAW)
    monkeypatch.setattr(folder, "FEW", 1)
    download.main()
    assert contents(RAW) == one


PICTURE = encoded(scene(1))
JPEG = encoded(scene(1, 200, 200), "jpeg")
HEADER = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
BOMB = PICTURE[:12] + HEADER + struct.pack(">I", zlib.crc32(HEADER)) + PICTURE[33:]
UNREADABLE = {
    "text.jpg": (b"no picture", "not a picture"),
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "bomb.png": (BOMB, "million pixels"),
    "empty.png": (b"", "not a picture"),
    "damaged.png": (PICTURE[:100] + bytes(20) + PICTURE[120:], "damaged"),
}


def test_files_that_cannot_be_loaded_are_named_and_skipped_up_to_a_share(own, capsys):
    put(classes_of("a", "b", count=10))
    put({f"a/{name}": content for name, (content, _) in UNREADABLE.items()})
    (OWN / "b/nowhere.jpg").symlink_to("nothing")
    change_params(own, download__unreadable=0.25)
    download.main()
    preprocess.main()
    told = capsys.readouterr().out
    listed = (PROCESSED / "problems.csv").read_text(encoding="utf-8")
    for name, reason in {
        **{n: r for n, (_, r) in UNREADABLE.items()},
        "nowhere.jpg": "No such",
    }.items():
        assert name in told
        (line,) = [line for line in listed.splitlines() if name in line]
        assert reason in line
    assert data.load_info(RAW).images == {"train": 20}
    change_params(own, download__unreadable=0.2)
    refused("6 of 26 pictures cannot be loaded")


def refused(match: str) -> None:
    """download stops with a message and changes nothing."""
    before = contents(Path("data"))
    with pytest.raises(UserError, match=match):
        download.main()
    assert contents(Path("data")) == before


def loop() -> None:
    put(classes_of("a", "b"))
    (OWN / "a/again").symlink_to(OWN.resolve() / "a", target_is_directory=True)


BAD: dict[str, tuple[dict[str, bytes] | Callable[[], None], str]] = {
    "no subfolders": ({"1.png": PICTURE}, "at least two classes, found none"),
    "one class": ({"a/1.png": PICTURE}, "at least two classes, found 'a' only"),
    "a folder too many": (
        {f"all/{name}": PICTURE for name in ("rose/1.png", "tulip/1.png")},
        "found 'all' only. If the classes are rose, tulip, .*move them up",
    ),
    "an empty class": (classes_of("a", "b") | {"c/.hidden.png": PICTURE}, "things/c: .*found none"),
    "no readable picture": (
        {"a/1.png": b"", "b/1.png": b"", "c/1.png": PICTURE, "c/2.png": PICTURE},
        "class 'a': expected pictures, found none",
    ),
    "a class in test only": (
        {
            f"{place}/1.png": PICTURE
            for place in ("train/a", "train/b", "test/a", "test/b", "test/c")
        },
        "test: class 'c' is not in .*train",
    ),
    "no class in test": (
        {f"{place}/1.png": PICTURE for place in ("train/a", "train/b", "test/a")},
        "test: expected a subfolder for each of at least two classes",
    ),
    "test without train": (
        {f"{place}/1.png": PICTURE for place in ("test/a", "test/b", "val/a")},
        "expected train/ .*found test, val",
    ),
    "names alike": (classes_of("rose", "Rose", "tulip"), "differ only in case: Rose, rose"),
    "a link in a circle": (loop, "again: a link to a folder that it is in"),
    "too many classes": ({f"{n}/1.png": PICTURE for n in range(257)}, "at most 256 .* 257"),
}


@pytest.mark.parametrize(("files", "message"), BAD.values(), ids=BAD)
def test_bad_folder_gets_a_message_and_changes_nothing(files, message, own):
    put({"a/1.png": PICTURE, "a/2.png": PICTURE, "b/1.png": PICTURE}, own / "data/own/good")
    change_params(own, download__dataset="good")
    download.main()
    share = 0.5 if message.startswith("class 'a'") else 0.01  # of files that may be unreadable
    change_params(own, download__dataset="things", download__unreadable=share)
    files() if callable(files) else put(files)
    refused(message)


def test_names_that_stand_for_no_folder_or_for_two_datasets_are_refused(own):
    put(classes_of("a", "b"))
    change_params(own, download__dataset="flowers")
    refused("expected one of mnist, .* folder in data/own .there: things., found 'flowers'")
    refused("DVC's queue and --temp .*: dvc add data/own/flowers, then git add")
    put(classes_of("a", "b"), own / "data/own/mnist")
    change_params(own, download__dataset="mnist")
    refused("data/own/mnist: a published dataset has this name")


def test_a_folder_that_changes_while_it_is_read_is_refused(own, monkeypatch):
    put(classes_of("a", "b"))
    original = folder.load

    def load(path: Path, **options) -> folder.Loaded:
        if path.name == "3.png":
            os.utime(OWN / "a/0.png", ns=(0, 0))
        return original(path, **options)

    monkeypatch.setattr(folder, "load", load)
    refused("changed while it was read")
