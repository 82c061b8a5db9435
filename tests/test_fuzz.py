"""The IDX reader gives what an independent decoder finds in a damaged file, or refuses the file."""

import gzip
import math
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from stages.base.stage import UserError
from stages.dataset import idx

SLACK = 600_000  # bytes of Python's own buffers, and of an error with its message
DIMENSIONS = (1, 3)  # of labels and of images
FIELDS = (0, 1, 2, 3, 4, 28, 255, 256, 65_536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)


def idx_content(shape: tuple[int, ...], data: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


def decoded(packed: bytes, dimensions: int) -> bytes | None:
    """What a genuine IDX file of that many dimensions unpacks to; None if `packed` is none."""
    try:
        content = gzip.decompress(packed)
    except Exception:
        return None
    header = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < header:
        return None
    size = math.prod(struct.unpack(f">{dimensions}I", content[4:header]))
    return content if 0 < size == len(content) - header else None


def declared(packed: bytes, dimensions: int) -> int:
    """Bytes of data that the header declares, as far as there is one; 0 if not."""
    try:
        content = gzip.decompress(packed)
        return math.prod(struct.unpack_from(f">{dimensions}I", content, 4))
    except Exception:
        return 0


def check_idx(packed: bytes, dimensions: int, path: Path, memory: bool = False) -> bool:
    """Read `packed` as a stage would; check the answer; return whether it was accepted."""
    path.write_bytes(packed)
    if memory:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
    try:
        blocks = list(idx.read_blocks(path, dimensions, 5))
    except UserError as error:
        blocks, message = None, str(error)
    if memory:
        peak = tracemalloc.get_traced_memory()[1] - before
        allowed = min(declared(packed, dimensions), len(packed) * idx.DEFLATE_RATIO)
        assert peak < allowed + SLACK, f"{peak:,} bytes for a file of {len(packed):,}"
    expected = decoded(packed, dimensions)
    assert (blocks is None) == (expected is None), "the independent decoder thinks otherwise"
    if blocks is None:
        assert str(path) in message
        assert "\n" not in message
    else:
        shape = idx.read_shape(path, dimensions)
        items = np.concatenate(blocks)
        assert idx_content(shape, items.tobytes()) == expected
        assert items.shape == shape
    return blocks is not None


def damaged(content: bytes, draw: random.Random) -> bytes:
    """`content` after one to three accidents: flipped bits, cuts, repeats, foreign fields."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        accident, place = draw.randrange(6), draw.randrange(len(data) + 1)
        if accident == 0 and data:
            data[place - 1] ^= 1 << draw.randrange(8)
        elif accident == 1:
            del data[place:]
        elif accident == 2:
            data += draw.randbytes(draw.randrange(1, 9))
        elif accident == 3:
            data[place:place] = data[place : place + draw.randrange(1, 40)]
        elif accident == 4:
            del data[place : place + draw.randrange(1, 9)]
        else:
            place = draw.choice((0, 4, 4, 8, 8, 12, 12, place))
            data[place : place + 4] = struct.pack(">I", draw.choice(FIELDS))
    return bytes(data)


def fuzz_idx(number: int, path: Path, memory: bool) -> int:
    """Read `number` damaged files; return how many of them were still genuine."""
    draw = random.Random(0)
    shapes = [(7,), (300,), (5, 2, 3), (11, 4, 4), (2, 28, 28), (1, 1, 1)]
    contents = [idx_content(shape, draw.randbytes(math.prod(shape))) for shape in shapes]
    contents.append(idx_content((40, 28, 28), bytes(40 * 28 * 28)))  # packs to a hundredth
    accepted = 0
    for _ in range(number):
        content = draw.choice(contents)
        kind = draw.randrange(4)  # damage inside, outside, both, or none but the dimensions asked
        if kind in (0, 2):
            content = damaged(content, draw)
        packed = gzip.compress(content, draw.choice((0, 1)), mtime=0)
        if kind == 3 and draw.randrange(4) == 0:
            packed = packed + gzip.compress(b"", mtime=0) * draw.randrange(2) + bytes(3)
        if kind in (1, 2):
            packed = damaged(packed, draw)
        accepted += check_idx(packed, draw.choice(DIMENSIONS), path, memory)
    return accepted


def test_damaged_idx_files_are_told_from_genuine_ones_in_bounded_memory(tmp_path):
    tracemalloc.start()
    try:
        accepted = fuzz_idx(1000, tmp_path / "input", memory=True)
    finally:
        tracemalloc.stop()
    assert 50 < accepted < 950, "else one of the two ways is not tried"


@pytest.mark.slow
def test_a_million_damaged_idx_files(tmp_path):
    fuzz_idx(1_000_000, tmp_path / "input", memory=False)
