"""Stage preprocess: arrays in three splits, data/processed/{train,validation,test}.

The files are checked against dataset.json and against each other. Images stay bytes. Which split an
image belongs to, and its place there, are a function of its own pixels and a seed: adding an image
moves no other, and names and order of files change nothing. Memory does not grow with the number of
images: they are loaded twice, block by block, and written to memory-mapped files. The arrays get
their names only when all files have been loaded to the end: a damaged one changes nothing.
"""

import json
from pathlib import Path

import numpy as np

from stages.base import data, params
from stages.base.data import PROCESSED, RAW, SPLITS, DatasetInfo
from stages.base.files import replacing_together, write_json
from stages.base.settings import Preprocess
from stages.base.stage import UserError, run_stage
from stages.dataset import idx
from stages.dataset.splits import assign, digests


def preprocess(raw: Path, processed: Path, settings: Preprocess) -> dict[str, int]:
    """Turn the IDX files in `raw` into the arrays in `processed`.

    Args:
        raw: folder with the gzipped IDX files and dataset.json.
        processed: folder for {train,validation,test}/{images,labels,numbers}.npy and dataset.json,
            see data.Split.
        settings: how many images are for validation and test, and which.

    Returns:
        Images per split.

    Raises:
        UserError: an input is missing or damaged, the files don't belong together, or a class has
            too few images to be in each split. `processed` is then as it was before.
    """
    info = data.load_info(raw)
    labels = {split: load_labels(raw, split, info) for split in info.images}
    keys = {split: digests(raw / images_file(split, info)) for split in info.images}
    # By split to be written: from which one of the source, and its images' numbers there, in order.
    parts = {split: (split, np.arange(len(labels[split]))) for split in info.images}
    shares = {"test": settings.test_size, "validation": settings.validation_size}
    shares = {split: share for split, share in shares.items() if split not in info.images}
    if shares.get("test") == 0:
        raise UserError(
            "params.yaml: preprocess.test_size: expected more than 0, since the dataset has no "
            "test images of its own"
        )
    assigned = assign(keys["train"], labels["train"], shares, settings.seed, info.classes)
    parts |= {split: ("train", numbers) for split, numbers in assigned.items()}
    with replacing_together() as new:
        for split in SPLITS:
            source, numbers = parts[split]
            order = np.lexsort((labels[source][numbers], keys[source][numbers]))
            numbers = numbers[order].astype(np.uint32)
            folder = processed / split
            arrays = {"numbers": numbers, "labels": labels[source][numbers]}
            for name, array in arrays.items():
                with open(new(folder / f"{name}.npy"), "wb") as file:
                    np.save(file, array)
            write_images(raw / images_file(source, info), numbers, new(folder / "images.npy"), info)
            own = {"images": {split: len(numbers)}, "disputed": ()}
            if split == "test":
                own["disputed"] = info.disputed
            content = info.model_copy(update=own).model_dump_json(indent=2) + "\n"
            new(folder / "dataset.json").write_text(content, encoding="utf-8", newline="\n")
            if split == "test" and (raw / "files.json").exists():  # of a folder of pictures
                names = json.loads((raw / "files.json").read_text(encoding="utf-8"))["images"]
                write_json(new(folder / "files.json"), [names[source][i] for i in numbers])
    return {split: len(parts[split][1]) for split in SPLITS}


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
            f"at number {labels.argmax():,}"
        )
    return labels


def write_images(source: Path, numbers: np.ndarray, target: Path, info: DatasetInfo) -> None:
    """Write some images of an IDX file as an array, in the order of their numbers."""
    shape = (len(numbers), *info.shape)
    if not len(numbers):  # what is empty cannot be memory-mapped
        with open(target, "wb") as file:
            np.save(file, np.empty(shape, np.uint8))
        return
    array = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
    by_number = np.argsort(numbers)
    start = done = 0
    for block in idx.read_blocks(source):
        end = int(np.searchsorted(numbers, start + len(block), sorter=by_number))
        rows = by_number[done:end]
        array[rows] = block[numbers[rows] - start].reshape(-1, *info.shape)
        start, done = start + len(block), end
    array.flush()


def main() -> None:
    counts = preprocess(RAW, PROCESSED, params.load().preprocess)
    print(", ".join(f"{count:,} {split}" for split, count in counts.items()), "images")


if __name__ == "__main__":
    run_stage(main)
