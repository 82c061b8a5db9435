"""A dataset made of a folder of pictures: a subfolder per class, or train/ and test/ with these.

    data/own/flowers/rose/1.jpg                 all are divided into splits by preprocess
    data/own/flowers/train/rose/1.jpg           the user's own splits: train, test, validation

The folder is read and never written. Pictures are decoded on all cores and go to a file as they
come, so the memory needed does not grow with their number.
"""

import json
import os
import re
import signal
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from stages.base.data import SPLITS, DatasetInfo
from stages.base.files import atomic_outputs
from stages.base.settings import Download
from stages.base.stage import UserError
from stages.dataset import idx
from stages.dataset.picture import SUFFIXES, NotLoadedError, grey, opened, prepare

OWN = Path("data/own")
NAMES_OF_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# What systems and programs leave in folders; hidden files are skipped, too.
NO_PICTURES = {"__macosx", "thumbs.db", "desktop.ini"}
COLOURED = 12  # of 255: by so much the channels of a grey JPEG never differ
FEW = 100  # pictures for which starting processes does not pay
BLOCK = 256  # images


class Picture(NamedTuple):
    """A file: its class, its path, and its size and time, by which a change is noticed."""

    label: str
    path: Path
    state: tuple[int, int]


class Loaded(NamedTuple):
    """What became of a file: an image, uint8, shape (size, size, 3), and the picture's size (width,
    height), or the reason why it cannot be loaded."""

    image: np.ndarray | None
    size: tuple[int, int] = (0, 0)
    fault: str = ""


def write_folder(source: Path, target: Path, settings: Download) -> DatasetInfo:
    """Write the pictures in `source` as IDX files into `target`, and their names into files.json.

    Args:
        source: a folder with a subfolder per class, or with train/, test/ and validation/.
        target: folder for the files; if this fails, those it holds stay as they are.
        settings: size, colour and fit of the images, and how many files may be unreadable.

    Raises:
        UserError: the folder is not laid out like that, or too many files cannot be loaded.
    """
    by_split = find_pictures(source)
    pictures = [picture for part in by_split.values() for picture in part]
    classes = sorted({picture.label for picture in by_split["train"]}, key=natural)
    side, coloured = settings.size, settings.colour is True
    work = partial(load, size=side, fit=settings.fit)
    faults: dict[str, str] = {}
    kept = []  # numbers of the pictures that can be loaded, and the sizes of these
    sizes = []
    with TemporaryFile() as file:
        loaded = in_parallel(work, [picture.path for picture in pictures])
        bar = tqdm(loaded, source.name, len(pictures), unit=" pictures", disable=None)
        for number, (image, size, fault) in enumerate(bar):
            if image is None:
                faults[relative(pictures[number].path, source)] = fault
                continue
            kept.append(number)
            sizes.append(size)
            if settings.colour == "auto" and not coloured:
                coloured = bool((image.max(axis=2) - image.min(axis=2)).max() > COLOURED)
            file.write(image.tobytes())
        if find_pictures(source) != by_split:
            raise UserError(f"{source}: changed while it was read: run this again")
        check_faults(source, faults, len(pictures), settings.unreadable)
        if any(folder.is_symlink() for folder in (source, *source.rglob("*")) if folder.is_dir()):
            print(
                f"{source}: DVC follows no links to folders. When what they lead to has changed: "
                "dvc repro --force --single-item download, then dvc repro"
            )
        file.flush()
        channels = 3 if coloured else 1
        parts = np.repeat([*by_split], [len(part) for part in by_split.values()])[kept]
        names = [relative(pictures[number].path, source) for number in kept]
        labels = np.array([classes.index(pictures[number].label) for number in kept], np.uint8)
        with atomic_outputs() as temporary:
            for split in by_split:
                rows = np.flatnonzero(parts == split)
                counts = np.bincount(labels[rows], minlength=len(classes))
                if not counts.all():
                    where = source if len(by_split) == 1 else f"{source} ({split})"
                    name = classes[counts.argmin()]
                    raise UserError(f"{where}: class {name!r}: expected pictures, found none")
                idx.write(temporary(target / idx.labels_file(split)), labels[rows])
                path = temporary(target / idx.images_file(split, channels))
                shape = (len(rows), side, side, 3)[: 4 if coloured else 3]
                file.seek(rows[0] * side * side * 3)
                with idx.writing(path, shape) as append:
                    for start in range(0, len(rows), BLOCK):
                        count = min(BLOCK, len(rows) - start)
                        block = np.frombuffer(file.read(count * side * side * 3), np.uint8)
                        block = block.reshape(count, side, side, 3)
                        append(block if coloured else grey(block))
            content = {
                "images": {
                    split: [names[i] for i in np.flatnonzero(parts == split)] for split in by_split
                },
                "sizes": {
                    split: [sizes[i] for i in np.flatnonzero(parts == split)] for split in by_split
                },
                "unreadable": faults,
            }
            text = json.dumps(content, ensure_ascii=False) + "\n"
            temporary(target / "files.json").write_text(text, encoding="utf-8", newline="\n")
    return DatasetInfo(
        name=source.name,
        subject=f"pictures: {source.name}",
        licence="not stated",
        classes=tuple(classes),
        height=side,
        width=side,
        channels=channels,
        images={split: int((parts == split).sum()) for split in by_split},
        fit=settings.fit,
    )


def find_pictures(source: Path) -> dict[str, list[Picture]]:
    """The files of each split, in the natural order of their names.

    Raises:
        UserError: the folder is not laid out as it must be.
    """
    names = {folder: NAMES_OF_SPLITS.get(folder.name.lower()) for folder in subfolders(source)}
    places = {"train": source}  # all of them, unless each folder is one of a split
    if names and all(names.values()):
        places = {split: folder for folder, split in names.items()}
        if len(places) < len(names) or "train" not in places:
            raise UserError(
                f"{source}: expected train/ and perhaps test/ and validation/, one of each, found "
                f"{', '.join(folder.name for folder in names)}"
            )
    by_split = {}
    for split in filter(places.get, SPLITS):
        folders = subfolders(places[split])
        check_classes(places[split], folders)
        by_split[split] = [
            Picture(class_name(folder), path, state)
            for folder in folders
            for path, state in files_in(folder, ())
        ]
        labels, trained = ({each.label for each in by_split[s]} for s in (split, "train"))
        if extra := labels - trained:
            raise UserError(f"{places[split]}: class {min(extra)!r} is not in {places['train']}")
    return by_split


def check_classes(place: Path, folders: list[Path]) -> None:
    """Check that there is a folder for each of several classes.

    Raises:
        UserError: there are too few, too many, or two whose names are alike.
    """
    names = [class_name(folder) for folder in folders]
    if len(names) < 2:
        inner = [folder.name for only in folders for folder in subfolders(only)]
        hint = f". If the classes are {', '.join(inner[:3])}, …: move them up" if inner else ""
        raise UserError(
            f"{place}: expected a subfolder for each of at least two classes, found "
            f"{repr(names[0]) + ' only' if names else 'none'}{hint}"
        )
    if len(names) > 256:
        raise UserError(f"{place}: expected at most 256 classes, found {len(names)}")
    if twins := [
        name for name in names if [n.casefold() for n in names].count(name.casefold()) > 1
    ]:
        raise UserError(f"{place}: names of classes differ only in case: {', '.join(twins)}")
    for folder in folders:
        if not any(True for _ in files_in(folder, ())):
            raise UserError(f"{folder}: expected pictures of this class, found none")


def class_name(folder: Path) -> str:
    """The name of a folder; umlauts are stored differently by different systems."""
    return unicodedata.normalize("NFC", os.fsencode(folder.name).decode("utf-8", "replace"))


def relative(path: Path, source: Path) -> str:
    """The path within the folder, as text that can be stored."""
    return os.fsencode(path.relative_to(source).as_posix()).decode("utf-8", "backslashreplace")


def subfolders(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir()]


def entries(folder: Path) -> list[Path]:
    """What is in a folder, in natural order, but for what is hidden or other programs' own."""
    names = os.listdir(folder)
    names = [name for name in names if name[0] != "." and name.lower() not in NO_PICTURES]
    return [folder / name for name in sorted(names, key=natural)]


def files_in(folder: Path, above: tuple[str, ...]) -> Iterator[tuple[Path, tuple[int, int]]]:
    """The picture files in a folder and in the folders in it, with size and time.

    A file whose name does not say what it is counts if it is a picture.
    """
    real = os.path.realpath(folder)
    if real in above:
        raise UserError(f"{folder}: a link to a folder that it is in: remove it")
    for path in entries(folder):
        if path.is_dir():
            yield from files_in(path, (*above, real))
        elif path.suffix.lower() in SUFFIXES or path.suffix == "" and is_picture(path):
            status = path.stat() if path.exists() else path.lstat()  # a link may lead nowhere
            yield path, (status.st_size, status.st_mtime_ns)


def is_picture(path: Path) -> bool:
    try:
        with opened(path):
            return True
    except NotLoadedError:
        return False


def natural(name: str) -> tuple[list, str]:
    """A key to sort names by, in which 10 comes after 9.

    >>> sorted(["b", "a10", "a9"], key=natural)
    ['a9', 'a10', 'b']
    """
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], name


def load(path: Path, size: int, fit: str) -> Loaded:
    """Load one picture as an image of size × size pixels, in colour."""
    try:
        with opened(path) as picture:
            found = picture.size
            return Loaded(prepare(picture, (size, size, 3), fit), found)
    except NotLoadedError as error:
        return Loaded(None, fault=str(error))


def in_parallel(work: partial, paths: list[Path]) -> Iterator[Loaded]:
    """What `work` makes of each path, in order, on all cores."""
    if len(paths) < FEW:
        yield from map(work, paths)
        return
    # Ctrl-C is the parent's to handle.
    pool = ProcessPoolExecutor(initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        yield from pool.map(work, paths, chunksize=16)
    finally:
        pool.shutdown(cancel_futures=True)


def check_faults(source: Path, faults: dict[str, str], count: int, most: float) -> None:
    """Tell which files cannot be loaded.

    Raises:
        UserError: they are too many.
    """
    lines = [f"  {name}: {fault}" for name, fault in faults.items()]
    shown = "\n".join(lines[:10] + [f"  and {len(lines) - 10} others"] * (len(lines) > 10))
    if len(faults) > most * count:
        raise UserError(
            f"{source}: {len(faults)} of {count:,} pictures cannot be loaded; download.unreadable "
            f"allows {most:.1%}. Remove or mend them, or raise it:\n{shown}"
        )
    if faults:
        print(f"{source}: skipped, since they cannot be loaded:\n{shown}")
