"""IDX, the format of MNIST's files: four bytes of magic, the dimensions, then the bytes in C order.

The reader trusts nothing: it checks the magic, the dimensions, the exact length both ways and
gzip's checksum, and it never holds or unpacks more than the header declares and LIMIT allows.
Format: the section "The IDX file format" of http://yann.lecun.com/exdb/mnist/ (archived).
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from stages.base.files import replacing
from stages.base.stage import UserError

DEFLATE_RATIO = 1032  # a deflate stream unpacks to at most so many times its size (zlib's manual)
UNSIGNED_BYTES = 0x0800  # the upper half of the magic number; the lower one counts dimensions
AGAIN = "run `dvc repro download`"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what gzip, zlib and struct raise on a damaged file into a UserError that names it."""
    try:
        yield
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{path} cannot be loaded ({error}): {AGAIN}") from None


def read_shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """The dimensions that the header of the gzipped IDX file `path` declares.

    Raises:
        UserError: the file is missing, damaged or of another type or number of dimensions.
    """
    with _explained(path), gzip.open(path) as file:
        header = file.read(4 + 4 * dimensions)
        magic, *shape = struct.unpack(f">{1 + dimensions}I", header)
    if magic != (expected := UNSIGNED_BYTES + dimensions):
        raise UserError(f"{path}: expected the magic {expected:08x}, found {magic:08x}: {AGAIN}")
    size = math.prod(shape)
    if not 0 < size <= path.stat().st_size * DEFLATE_RATIO:
        raise UserError(f"{path} is empty or truncated: {size:,} bytes declared: {AGAIN}")
    return tuple(shape)


def read_blocks(path: Path, dimensions: int, block_size: int = 4096) -> Iterator[np.ndarray]:
    """Yield the items of the gzipped IDX file `path` in order, `block_size` at a time.

    Args:
        path: a gzipped IDX file of unsigned bytes.
        dimensions: how many the file must have, the items' own included (3 for images).
        block_size: items per block; the memory needed is that of one block.

    Yields:
        Arrays of uint8, shape (block_size, ...) or fewer in the last.

    Raises:
        UserError: the file is missing, damaged, too short, too long or of another type; a fault
            behind the header shows only when the blocks before it have been yielded.
    """
    items, *item = read_shape(path, dimensions)
    item_size = math.prod(item)  # bytes
    with _explained(path), gzip.open(path) as file:
        file.read(4 + 4 * dimensions)  # the header
        for start in range(0, items, block_size):
            count = min(block_size, items - start)
            data = file.read(count * item_size)
            if len(data) < count * item_size:
                end = start + len(data) // item_size
                raise UserError(f"{path}: expected {items:,} items, found {end:,}: {AGAIN}")
            yield np.frombuffer(data, np.uint8).reshape(count, *item)
        if file.read(1):  # reading past the end is also what makes gzip check its checksum
            raise UserError(f"{path} is longer than the {items:,} items it declares: {AGAIN}")


def write(path: Path, items: np.ndarray) -> None:
    """Write uint8 `items` as a gzipped IDX file, the same bytes each time, whole or not at all."""
    header = struct.pack(f">{1 + items.ndim}I", UNSIGNED_BYTES + items.ndim, *items.shape)
    content = header + items.tobytes()
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0))
