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
    all. The rows appended must add up to `shape`.
    """
    missing = shape[0]
    with replacing(path) as temporary, open(temporary, "wb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

        def append(rows: np.ndarray) -> None:
            nonlocal missing
            file.write(np.ascontiguousarray(rows, dtype))
            missing -= len(rows)

        yield append
        if missing:
            raise ValueError(f"{path}: {missing} rows short of shape {shape}")


def load(path: Path) -> np.ndarray:
    """The array in `path`, memory-mapped and read-only; nothing is unpickled.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise UserError(f"{path} not found: run `dvc repro preprocess` first") from None
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it and run `dvc repro preprocess`"
        ) from None


def load_split(split: str, folder: Path = PROCESSED) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of `split` ("train", "validation" or "test") as preprocess wrote them.

    Returns:
        images: float32 in [0, 1], shape (N, 28, 28, 1), memory-mapped.
        labels: uint8, shape (N,).

    Raises:
        UserError: a file is missing or damaged, or there are not as many labels as images.
    """
    images, labels = (load(folder / split / f"{name}.npy") for name in ("images", "labels"))
    if len(images) != len(labels):
        raise UserError(
            f"{folder / split}: expected as many labels as images, found {len(labels):,} labels "
            f"and {len(images):,} images: run `dvc repro --force preprocess`"
        )
    return images, labels
