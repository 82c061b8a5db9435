"""IDX, the format of MNIST's files: four bytes of magic, the dimensions, then the bytes in C order.

The reader trusts nothing: it checks the magic, the dimensions, the exact length both ways and
gzip's checksum, and it never holds more than a block or unpacks more than the header declares.
Format: the section "The IDX file format" of http://yann.lecun.com/exdb/mnist/ (archived).
"""

import gzip
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stages.base.files import atomic_output
from stages.base.stage import UserError

DEFLATE_RATIO = 1032  # a deflate stream unpacks to at most so many times its size (zlib's manual)
UNSIGNED_BYTES = 0x0800  # the upper half of the magic number; the lower one counts dimensions
AGAIN = "correct it at its source, and get it with `dvc repro --force --single-item download`"
PREFIXES = {"train": "train", "validation": "validation", "test": "t10k"}


def images_file(split: str, channels: int = 1) -> str:
    """The name of a split's file of images: grey ones have three dimensions, coloured ones four.

    >>> images_file("test")
    't10k-images-idx3-ubyte.gz'
    """
    return f"{PREFIXES[split]}-images-idx{3 if channels == 1 else 4}-ubyte.gz"


def of_images(split: str) -> tuple[str, str]:
    """Both names that a split's file of images may have."""
    return images_file(split, 1), images_file(split, 3)


def labels_file(split: str) -> str:
    """The name of a split's file of labels."""
    return f"{PREFIXES[split]}-labels-idx1-ubyte.gz"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what gzip, zlib and struct raise on a damaged file into a UserError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} not found: run `dvc repro`") from None
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{path} cannot be loaded ({error}): {AGAIN}") from None


def read_shape(path: Path) -> tuple[int, ...]:
    """The dimensions that the header of the gzipped IDX file `path` declares.

    Raises:
        UserError: the file is missing, damaged, or not of unsigned bytes.
    """
    with _explained(path), gzip.open(path) as file:
        (magic,) = struct.unpack(">I", file.read(4))
        if magic >> 8 != UNSIGNED_BYTES >> 8 or not (dimensions := magic & 0xFF):
            raise UserError(
                f"{path}: expected an IDX file of unsigned bytes (magic 000008..), "
                f"found the magic {magic:08x}: {AGAIN}"
            )
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    size = math.prod(shape)
    if not 0 < size <= path.stat().st_size * DEFLATE_RATIO:
        raise UserError(f"{path} is empty or truncated: {size:,} bytes declared: {AGAIN}")
    return shape


def read_blocks(path: Path, block_size: int = 4096) -> Iterator[np.ndarray]:
    """Yield the items of the gzipped IDX file `path` in order, `block_size` at a time.

    Args:
        path: a gzipped IDX file of unsigned bytes.
        block_size: items per block; the memory needed is that of one block.

    Yields:
        Arrays of uint8, shape (block_size, ...) or fewer in the last.

    Raises:
        UserError: the file is missing, damaged, too short, too long or of another type; a fault
            behind the header shows only when the blocks before it have been yielded.
    """
    items, *item = read_shape(path)
    item_size = math.prod(item)  # bytes
    with _explained(path), gzip.open(path) as file:
        file.read(4 + 4 * (1 + len(item)))  # the header
        for start in range(0, items, block_size):
            count = min(block_size, items - start)
            data = file.read(count * item_size)
            if len(data) < count * item_size:
                end = start + len(data) // item_size
                raise UserError(f"{path}: expected {items:,} items, found {end:,}: {AGAIN}")
            yield np.frombuffer(data, np.uint8).reshape(count, *item)
        if file.read(1):  # reading past the end is also what makes gzip check its checksum
            raise UserError(f"{path} is longer than the {items:,} items it declares: {AGAIN}")


@contextmanager
def writing(path: Path, shape: tuple[int, ...]) -> Iterator[Callable[[np.ndarray], None]]:
    """Create a gzipped IDX file of known shape; yield a function that appends a block of items.

    The same items give the same bytes. Needs the memory of one block; the file appears whole when
    the block of code ends, or not at all.

    Raises:
        ValueError: items are not uint8, or do not add up to `shape`.
    """
    left = math.prod(shape)

    def append(items: np.ndarray) -> None:
        nonlocal left
        if items.dtype != np.uint8 or items.shape[1:] != shape[1:]:
            raise ValueError(
                f"{path}: expected uint8 {shape[1:]}, found {items.dtype} {items.shape}"
            )
        left -= items.size
        file.write(items.tobytes())

    # Level 1: of photographs, more effort saves next to nothing.
    with atomic_output(path) as temporary, open(temporary, "wb") as plain:
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=plain, mtime=0) as file:
            magic = UNSIGNED_BYTES + len(shape)
            file.write(struct.pack(f">{1 + len(shape)}I", magic, *shape))
            yield append
        if left:
            raise ValueError(
                f"{path}: expected items of the shape {shape}, {left} bytes are missing"
            )


def write(path: Path, items: np.ndarray) -> None:
    """Write items as a gzipped IDX file, the same bytes each time, whole or not at all.

    >>> write(Path("labels.gz"), np.array([3, 1, 4]))

    Args:
        items: integers from 0 to 255 of any integer type, of any shape.

    Raises:
        ValueError: they are something else.
    """
    items = np.asarray(items)
    if items.dtype.kind not in "iu" or items.size and not 0 <= items.min() <= items.max() <= 255:
        raise ValueError(f"{path}: expected integers from 0 to 255, found {items.dtype}")
    with writing(path, items.shape) as append:
        append(items.astype(np.uint8))
