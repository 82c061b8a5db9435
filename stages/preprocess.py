"""Stage preprocess: arrays in three splits, data/processed/, and a look at them.

The files are checked against dataset.json and against each other. Images stay bytes. Which split an
image belongs to, and its place there, are a function of its own pixels and a seed: adding an image
moves no other, and names and order of files change nothing. Images of the same picture are never
divided between splits. Memory does not grow with the number of images: they are loaded block by
block into a temporary file. Outputs get their names when all are written: a damaged file changes
nothing.
"""

import json
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np

from stages.base import data, params
from stages.base.data import PROCESSED, RAW, SPLITS, DatasetInfo
from stages.base.files import atomic_outputs, naming, write_json
from stages.base.settings import Preprocess
from stages.base.stage import UserError, run_stage
from stages.dataset import duplicates, idx
from stages.dataset.splits import assign, digest
from stages.report import look

BLOCK = 4096  # images


def preprocess(raw: Path, processed: Path, settings: Preprocess) -> None:
    """Turn the IDX files in `raw` into the arrays in `processed`.

    Args:
        raw: folder with the gzipped IDX files and dataset.json, and files.json if they were made of
            pictures.
        processed: folder for {train,validation,test}/{images,labels,numbers}.npy and dataset.json,
            see data.Split. Beside the test images stand seen.npy, bool, shape (N,): whether other
            splits have the same picture, and files.json, the names of pictures.
        settings: how many images are for validation and test, and which.

    Raises:
        UserError: an input is missing or damaged, the files don't belong together, or a class has
            too few images to be in each split. `processed` is then as it was before.
    """
    info = data.load_info(raw)
    labels = np.concatenate([load_labels(raw, split, info) for split in info.images])
    parts = np.repeat(np.array([*info.images], "U10"), [*info.images.values()])
    numbers = np.concatenate([np.arange(count, dtype=np.uint32) for count in info.images.values()])
    files = json.loads((raw / "files.json").read_bytes()) if info.fit else {}  # of pictures
    if files:
        names = [name for split in info.images for name in files["images"][split]]
    else:
        names = [f"{part} {number}" for part, number in zip(parts, numbers, strict=True)]
    processed.mkdir(parents=True, exist_ok=True)
    with naming(processed), TemporaryFile(dir=processed) as file, atomic_outputs() as temporary:
        images, digests = load_images(raw, info, file)
        groups, alike = duplicates.groups(images, digests, labels)
        shares = {"test": settings.test_size, "validation": settings.validation_size}
        shares = {split: share for split, share in shares.items() if split not in info.images}
        if shares.get("test") == 0:
            raise UserError(
                "params.yaml: preprocess.test_size: expected more than 0, since the dataset has no "
                "test images of its own"
            )
        rest = np.flatnonzero(parts == "train")
        assigned = assign(groups[rest], labels[rest], shares, settings.seed, info.classes)
        for split, rows in assigned.items():
            parts[rest[rows]] = split
        names = np.array(names, object)
        dataset = look.Dataset(info, images, labels, parts, names, digests, groups, alike, files)
        for split in SPLITS:
            rows = np.flatnonzero(parts == split)
            rows = rows[np.lexsort((labels[rows], digests[rows]))]
            folder = processed / split
            # Of pictures, names are known: then their numbers must not change when one is added.
            own_numbers = np.arange(len(rows), dtype=np.uint32) if files else numbers[rows]
            save_images(images, rows, temporary(folder / "images.npy"))
            save(labels[rows], temporary(folder / "labels.npy"))
            save(own_numbers, temporary(folder / "numbers.npy"))
            own = {"images": {split: len(rows)}, "disputed": ()}
            if split == "test":
                own["disputed"] = info.disputed
                save(dataset.seen[rows], temporary(folder / "seen.npy"))
                if files:
                    write_json(temporary(folder / "files.json"), names[rows].tolist())
            content = info.model_copy(update=own).model_dump_json(indent=2) + "\n"
            temporary(folder / "dataset.json").write_text(content, encoding="utf-8", newline="\n")
        look.write(dataset, temporary)


def load_images(raw: Path, info: DatasetInfo, file: BinaryIO) -> tuple[np.ndarray, np.ndarray]:
    """Copy the images of all files into an empty one.

    Returns:
        The images, mapped from `file`, and checksums of their pixels, uint64, shape (N,).
    """
    digests = np.empty(sum(info.images.values()), np.uint64)
    start = 0
    for split in info.images:
        for block in idx.read_blocks(raw / images_file(split, info), BLOCK):
            file.write(block)  # not through the map: a full disk would kill the process
            digests[start : start + len(block)] = [digest(image.tobytes()) for image in block]
            start += len(block)
    file.flush()
    return np.memmap(file, np.uint8, "r", shape=(len(digests), *info.shape)), digests


def save_images(images: np.ndarray, rows: np.ndarray, path: Path) -> None:
    """Write some images as an array, in the order of `rows`."""
    shape = (len(rows), *images.shape[1:])
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(rows), BLOCK):
            file.write(images[rows[start : start + BLOCK]].tobytes())


def save(array: np.ndarray, path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, array)


def images_file(split: str, info: DatasetInfo) -> str:
    return idx.images_file(split, info.channels)


def load_labels(raw: Path, split: str, info: DatasetInfo) -> np.ndarray:
    """The labels of a split, uint8, shape (N,), checked against the header of its images.

    Raises:
        UserError: a label is out of range, or number or size of the images are not as expected.
    """
    path, images = raw / idx.labels_file(split), raw / images_file(split, info)
    expected = (info.images[split], *(info.shape if info.channels > 1 else info.shape[:2]))
    if (found := idx.read_shape(images)) != expected:
        raise UserError(f"{images}: dataset.json says {expected}, found the dimensions {found}")
    if (found := idx.read_shape(path)) != expected[:1]:
        raise UserError(f"{path}: expected {expected[0]:,} labels, one per image, found {found}")
    labels = np.concatenate(list(idx.read_blocks(path, block_size=2**20)))
    if labels.max() >= len(info.classes):
        raise UserError(
            f"{path}: expected labels from 0 to {len(info.classes) - 1}, found {labels.max()} "
            f"at number {labels.argmax():,}: name its class in the catalogue, or {idx.AGAIN}"
        )
    return labels


def main() -> None:
    preprocess(RAW, PROCESSED, params.load().preprocess)


if __name__ == "__main__":
    run_stage(main, __doc__)
