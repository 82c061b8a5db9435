"""The .npy arrays between stages: written block by block, read memory-mapped, never unpickled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stages.base.files import replacing
from stages.base.stage import UserError

PROCESSED = Path("data/processed")  # a folder per split


@contextmanager
def appending(
    path: Path, shape: tuple[int, ...], dtype: type
) -> Iterator[Callable[[np.ndarray], None]]:
    """Create the array `path` of known shape and yield a function that appends a block of rows.

    Needs the memory of one block; the file appears whole when the block of code ends, or not at
    all. The rows appended must add up to `shape`, which is not checked.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda rows: file.write(np.ascontiguousarray(rows, dtype))


def load(path: Path) -> np.ndarray:
    """The array in `path`, memory-mapped and read-only; nothing is unpickled.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be loaded ({error}): run `dvc repro preprocess`") from None


def load_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of `split` ("train", "validation" or "test"), as preprocess wrote them.

    Returns:
        images: float32 in [0, 1], shape (N, 28, 28, 1), memory-mapped.
        labels: uint8, shape (N,).

    Raises:
        UserError: a file is missing or damaged.
    """
    return load(PROCESSED / split / "images.npy"), load(PROCESSED / split / "labels.npy")
