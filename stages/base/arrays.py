"""The .npy arrays between stages: written block by block, read memory-mapped, never unpickled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stages.base.files import replacing
from stages.base.stage import UserError

PROCESSED = Path("data/processed")  # where preprocess puts the arrays


@contextmanager
def appending(
    path: Path, shape: tuple[int, ...], dtype: type
) -> Iterator[Callable[[np.ndarray], None]]:
    """Create the array `path` of known shape and yield a function that appends a block of rows.

    Needs the memory of one block; the file appears whole when the block of code ends, or not at
    all. The rows appended must add up to `shape`.
    """
    missing = shape[0]
    with replacing(path) as temporary, open(temporary, "wb", buffering=0) as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

        def append(rows: np.ndarray) -> None:
            nonlocal missing
            data = memoryview(np.ascontiguousarray(rows, dtype).reshape(-1)).cast("B")
            while data:  # an unbuffered write may take less than all, when the disk fills up
                data = data[file.write(data) :]
            missing -= len(rows)

        yield append
        if missing:
            raise ValueError(f"{path}: {missing} rows short of shape {shape}")


def load(path: Path) -> np.ndarray:
    """The array in `path`, memory-mapped and read-only.

    Raises:
        UserError: the file is missing or no intact .npy file.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")  # never unpickles, knows .npy only
    except FileNotFoundError:
        raise UserError(f"{path} not found: run `dvc repro preprocess` first") from None
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path} is no intact .npy array ({error}): delete it and run `dvc repro preprocess`"
        ) from None


def load_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of `split` ("train", "validation" or "test") as preprocess wrote them.

    Returns:
        images: float32 in [0, 1], shape (N, 28, 28, 1), memory-mapped.
        labels: uint8, shape (N,).

    Raises:
        UserError: a file is missing or damaged, or the two don't belong together.
    """
    images = load(folder / f"{split}_images.npy")
    labels = load(folder / f"{split}_labels.npy")
    for name, found, ndim, dtype in (
        ("images", images, 4, np.float32),
        ("labels", labels, 1, np.uint8),
    ):
        if found.dtype != dtype or found.ndim != ndim or len(found) != len(images):
            raise UserError(
                f"{folder}/{split}_{name}.npy: expected {ndim} dimensions of {np.dtype(dtype)} and "
                f"{len(images)} rows, found {found.dtype} of shape {found.shape}: "
                "run `dvc repro --force preprocess`"
            )
    return images, labels
