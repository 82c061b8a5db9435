"""A dataset made of a folder of pictures: a subfolder per class, or train/ and test/ with these.

    data/own/flowers/rose/1.jpg                 all are divided into splits by preprocess
    data/own/flowers/train/rose/1.jpg           the user's own splits: train, test, validation

The folder is read and never written. Pictures are decoded on all cores and go to a file as they
come, so the memory needed does not grow with their number.
"""

import json
import multiprocessing
import os
import re
import warnings
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from stages.base.data import DatasetInfo
from stages.base.files import replacing
from stages.base.settings import Download
from stages.base.stage import UserError
from stages.dataset import idx

OWN = Path("data/own")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SPLITS = ("train", "validation", "test")
LARGEST = 200_000_000  # pixels: more than any camera's, less than a file made to fill the memory
COLOURED = 12  # of 255: by so much the channels of a grey JPEG never differ
BLOCK = 256  # pictures


def write_folder(source: Path, target: Path, settings: Download) -> DatasetInfo:
    """Write the pictures in `source` as IDX files into `target`, and their names into files.json.

    Args:
        source: a folder with a subfolder per class, or with train/, test/ and validation/.
        target: folder for the files; if this fails, those it holds stay as they are.
        settings: size, colour and fit of the images, and how many files may be unreadable.

    Raises:
        UserError: the folder is not laid out like that, or too many files cannot be loaded.
    """
    found = find_pictures(source)
    classes = sorted({name for name, _ in found["train"]}, key=natural)
    paths = [path for pairs in found.values() for _, path in pairs]
    side, faults, kept = settings.size, {}, []
    coloured = settings.colour is True
    with TemporaryFile() as file, multiprocessing.Pool() as pool:
        work = partial(load_or_fault, size=(side, side), fit=settings.fit)
        bar = tqdm(
            pool.imap(work, paths, 16), source.name, len(paths), unit=" pictures", disable=None
        )
        for path, image in zip(paths, bar, strict=True):
            if isinstance(image, str):
                faults[path] = image
                continue
            kept.append(path)
            coloured = coloured or settings.colour == "auto" and is_coloured(image)
            file.write(image.tobytes())
        if find_pictures(source) != found:
            raise UserError(f"{source}: changed while it was read: run this again")
        check_faults(source, faults, len(paths), settings.unreadable)
        file.flush()
        usable, channels = set(kept), 3 if coloured else 1
        found = {split: [p for p in pairs if p[1] in usable] for split, pairs in found.items()}
        start, shape = 0, (side, side, 3) if coloured else (side, side)
        for split, pairs in found.items():
            labels = np.array([classes.index(name) for name, _ in pairs], np.uint8)
            missing = {*classes} - {name for name, _ in pairs}
            if missing and split == "train":
                raise UserError(f"{source}: no picture of {min(missing)!r} can be loaded")
            idx.write(target / idx.labels_file(split), labels)
            with idx.writing(
                target / idx.images_file(split, channels), (len(pairs), *shape)
            ) as append:
                for first in range(start, start + len(pairs), BLOCK):
                    count = min(BLOCK, start + len(pairs) - first)
                    file.seek(first * side * side * 3)
                    block = np.frombuffer(file.read(count * side * side * 3), np.uint8)
                    block = block.reshape(count, side, side, 3)
                    append(block if coloured else grey(block))
            start += len(pairs)
    names = {s: [p.relative_to(source).as_posix() for _, p in pairs] for s, pairs in found.items()}
    unreadable = {path.relative_to(source).as_posix(): fault for path, fault in faults.items()}
    with replacing(target / "files.json") as temporary:
        text = json.dumps({"images": names, "unreadable": unreadable}, ensure_ascii=False, indent=0)
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")
    return DatasetInfo(
        name=source.name,
        subject=f"pictures: {source.name}",
        licence="not stated",
        classes=tuple(classes),
        height=side,
        width=side,
        channels=channels,
        images={split: len(pairs) for split, pairs in found.items()},
        fit=settings.fit,
    )


def find_pictures(source: Path) -> dict[str, list[tuple[str, Path]]]:
    """By split the class and the path of each picture, in the natural order of their names.

    Raises:
        UserError: the folder is not laid out as it must be.
    """
    folders = subfolders(source)
    names = {folder.name for folder in folders}
    own_splits = "train" in names and names <= {*SPLITS}
    found = {}
    for split in SPLITS if own_splits else ("train",):
        if own_splits and split not in names:
            continue
        place = source / split if own_splits else source
        pairs = []
        for folder in subfolders(place):
            pictures = pictures_in(folder, [])
            if not pictures:
                raise UserError(f"{folder}: expected pictures of this class, found none")
            pairs += [(folder.name, path) for path in pictures]
        found[split] = pairs
    classes = {name for name, _ in found["train"]}
    for split, pairs in found.items():
        if extra := {name for name, _ in pairs} - classes:
            raise UserError(f"{source / split}: class {min(extra)!r} is not in train/")
    if len(classes) < 2:
        raise UserError(
            f"{source}: expected a subfolder with pictures for each of at least two classes, found "
            f"{', '.join(map(repr, sorted(classes))) or 'none'}"
        )
    if len(classes) > 256:
        raise UserError(f"{source}: expected at most 256 classes, found {len(classes)}")
    if len({name.casefold() for name in classes}) < len(classes):
        folded = [name.casefold() for name in classes]
        twins = sorted(name for name in classes if folded.count(name.casefold()) > 1)
        raise UserError(f"{source}: class names differ only in case: {', '.join(twins)}")
    return found


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, in natural order, without hidden ones."""
    return [path for path in entries(folder) if path.is_dir()]


def entries(folder: Path) -> list[Path]:
    """What is in a folder, in natural order, but for what is hidden or other programs' own."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    for name in names:
        if not name.isprintable():  # as are names that are not UTF-8
            raise UserError(f"{folder}: rename {name!r}: expected a name of printable characters")
    return [folder / name for name in sorted(names, key=natural)]


def pictures_in(folder: Path, above: list[str]) -> list[Path]:
    """All pictures in a folder and the folders in it."""
    real = os.path.realpath(folder)
    if real in above:
        raise UserError(f"{folder}: a link to a folder that it is in: remove it")
    found = []
    for path in entries(folder):
        if path.is_dir():
            found += pictures_in(path, [*above, real])
        elif path.suffix.lower() in SUFFIXES:
            found.append(path)
    return found


def natural(name: str) -> tuple:
    """A key to sort names by, in which 10 comes after 9."""
    parts = re.split(r"(\d+)", name)
    return *(int(part) if part.isdecimal() else part for part in parts), name


def load_or_fault(path: Path, size: tuple[int, int], fit: str) -> np.ndarray | str:
    """The image of a picture, uint8, shape (*size, 3), or the reason why it can't be loaded."""
    try:
        with warnings.catch_warnings(), opened(path) as picture:
            warnings.simplefilter("ignore")
            return prepare(picture, size, fit)
    except UnidentifiedImageError:
        return "not a picture in a format that can be loaded"
    except Image.DecompressionBombError:
        return f"more than {LARGEST // 10**6} million pixels"
    except OSError as error:
        return error.strerror or f"damaged ({error})"
    except (ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError) as error:
        return f"damaged ({error})"


def opened(path: Path) -> Image.Image:
    """Open a picture; HEIC, which has a library of its own, is tried last."""
    Image.MAX_IMAGE_PIXELS = LARGEST // 2  # Pillow refuses twice as many
    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        if path.suffix.lower() not in (".heic", ".heif"):
            raise
        from pillow_heif import register_heif_opener

        register_heif_opener()
        return Image.open(path, formats=["HEIF"])


def prepare(picture: Image.Image, size: tuple[int, int], fit: str) -> np.ndarray:
    """The image that a model sees of a picture, upright, transparency on white.

    A picture of that size stays as it is. Shrinking averages areas; enlarging interpolates.

    Args:
        picture: of any mode and size; its first frame is taken.
        size: height and width of the image.
        fit: "crop" cuts off the longer side, "pad" fills beside the shorter with the colour of the
            picture's border.

    Returns:
        uint8, shape (height, width, 3).
    """
    height, width = size
    if picture.format == "JPEG" and picture.mode in ("L", "RGB"):
        picture.draft(picture.mode, (2 * max(size), 2 * max(size)))  # decoded at part of its size
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):  # 16 bits or more
        values = np.asarray(picture, np.float64)
        low, high = (0, 65535) if picture.mode.startswith("I") else (0, 1)
        if not 0 <= values.min() <= values.max() <= high:
            low, high = np.nanmin(values), np.nanmax(values)
        values = np.nan_to_num((values - low) / max(high - low, 1e-9))
        picture = Image.fromarray(np.uint8(np.rint(255 * values)))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    if picture.size == (width, height):
        return np.asarray(picture)
    choose = max if fit == "crop" else min
    scale = choose(width / picture.width, height / picture.height)
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    if fit == "crop":
        across, down = (picture.width - width / scale) / 2, (picture.height - height / scale) / 2
        box = across, down, picture.width - across, picture.height - down
        return np.asarray(picture.resize((width, height), method, box))
    inner = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    small = np.asarray(picture.resize(inner, method))
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    image = np.empty((height, width, 3), np.uint8)
    image[:] = np.rint(border.mean(axis=0))
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return image


def is_coloured(image: np.ndarray) -> bool:
    """Whether an image, uint8, shape (height, width, 3), is more than grey."""
    return bool((np.int16(image.max(axis=2)) - image.min(axis=2)).max() > COLOURED)


def grey(images: np.ndarray) -> np.ndarray:
    """Images without colour (ITU-R 601, as Pillow does), uint8, shape (..., height, width)."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    return np.uint8((images @ weights + 0x8000) >> 16)


def check_faults(source: Path, faults: dict[Path, str], count: int, most: float) -> None:
    """Tell which files cannot be loaded.

    Raises:
        UserError: they are too many.
    """
    lines = [f"  {path.relative_to(source)}: {fault}" for path, fault in faults.items()]
    shown = "\n".join(lines[:10] + [f"  and {len(lines) - 10} others"] * (len(lines) > 10))
    if len(faults) > most * count:
        raise UserError(
            f"{source}: {len(faults)} of {count:,} pictures cannot be loaded; download.unreadable "
            f"allows {most:.1%}. Remove or mend them, or raise it:\n{shown}"
        )
    if faults:
        print(f"{source}: skipped, since they cannot be loaded:\n{shown}")
