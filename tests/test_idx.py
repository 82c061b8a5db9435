"""The IDX reader and writer: genuine files come through unchanged, and no damage passes silently.

Files are also put together and taken apart by hand here, so that the reader and the writer cannot
share a misunderstanding of the format.
"""

import gzip
import math
import random
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from stages.base.stage import UserError
from stages.dataset import idx

TWO_IMAGES = bytes.fromhex("00000803 00000002 00000001 00000003 010203fdfeff")
SHAPES = [(1,), (7,), (5000,), (1, 28, 28), (13, 28, 28), (10, 3, 5), (300, 1, 1), (4, 3, 2, 5)]


def random_items(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def packed(shape: tuple[int, ...], data: bytes, magic: str = "") -> bytes:
    """An IDX file before gzip; the header says what it is told to."""
    header = bytes.fromhex(magic or f"0000080{len(shape)}")
    return header + struct.pack(f">{len(shape)}I", *shape) + data


def read(path: Path, block_size: int = 4096) -> np.ndarray:
    return np.concatenate(list(idx.read_blocks(path, block_size)))


def assert_refused(path: Path, match: str | None = None) -> str:
    """Reading all of the file fails with one line that names it; return that line."""
    with pytest.raises(UserError, match=match) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@contextmanager
def peak_memory_below(limit: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "items.gz"


@pytest.mark.parametrize("block_size", [1, 4, 13, 4096])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_was_written_is_read_in_blocks(shape, block_size, path):
    items = random_items(*shape)
    idx.write(path, items)
    assert idx.read_shape(path) == shape
    blocks = list(idx.read_blocks(path, block_size))
    assert {block.dtype for block in blocks} == {np.dtype(np.uint8)}
    assert all(len(block) == block_size for block in blocks[:-1])
    assert 0 < len(blocks[-1]) <= block_size
    np.testing.assert_array_equal(np.concatenate(blocks), items)


def test_file_made_by_hand_is_read_and_written_again(path):
    path.write_bytes(gzip.compress(TWO_IMAGES))
    items = read(path)
    assert items.tolist() == [[[1, 2, 3]], [[253, 254, 255]]]
    idx.write(path, items)
    assert gzip.decompress(path.read_bytes()) == TWO_IMAGES
    assert path.read_bytes()[4:8] == bytes(4)  # no time (RFC 1952): the same bytes at any
    path.write_bytes(gzip.compress(TWO_IMAGES[:9]) + gzip.compress(TWO_IMAGES[9:]))  # two members
    np.testing.assert_array_equal(read(path), items)


@pytest.mark.parametrize("level", [0, 9], ids=["stored", "deflated"])
def test_neither_a_cut_nor_a_flipped_bit_anywhere_passes_for_other_data(level, path):
    # A few distinct values, so that deflate really codes them.
    items = np.random.default_rng(0).choice(np.array([0, 1, 7, 255], np.uint8), (5, 2, 3))
    whole = gzip.compress(packed(items.shape, items.tobytes()), level, mtime=0)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert_refused(path)
    refused = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read(path)
        except UserError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, items)
    assert refused >= 8 * (len(whole) - 10)  # gzip's header of ten bytes holds no data


def test_a_file_written_block_by_block_is_whole_or_not_there(path, tmp_path):
    items = random_items(10, 3, 5)
    idx.write(path, items)
    with idx.writing(tmp_path / "blocks.gz", (10, 3, 5)) as append:
        for block in np.split(items, [4, 9]):
            append(block)
    assert (tmp_path / "blocks.gz").read_bytes() == path.read_bytes()
    for block in (
        items[:9],
        np.concatenate([items, items[:1]]),
        items.astype(float),
        items[..., :4],
    ):
        with (
            pytest.raises(ValueError, match="expected"),
            idx.writing(tmp_path / "other.gz", items.shape) as append,
        ):
            append(block)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "blocks.gz"}


def images(lacking: int = 0, magic: str = "") -> bytes:
    return packed((5, 2, 3), bytes(30 - lacking), magic)


MAGICS = {  # of other files: no dimensions, signed bytes, floats, little-endian, zip
    magic: f"magic 000008..), found the magic {magic}: correct it"
    for magic in ("00000800", "00000903", "00000d03", "03080000", "504b0304")
}
REFUSED = [  # what gzip packs, what follows the stream, and what the message says
    *((images(magic=magic), b"", text) for magic, text in MAGICS.items()),
    *((images()[:length], b"", "") for length in range(16)),
    *((images() + bytes(excess), b"", "longer than the 5 items") for excess in (1, 6, 100_000)),
    *(
        (images(lacking), b"", f"expected 5 items, found {item}:")
        for lacking, item in ((30, 0), (13, 2), (1, 4))
    ),
    (packed((10_000, 1, 2), bytes(2 * 9_999 + 1)), b"", "expected 10,000 items, found 9,999:"),
    *((images(), garbage, "") for garbage in (b"x", b"\x1f\x8b", b"<html></html>")),
    *(
        (packed(shape, b""), b"", "empty or truncated: 0 bytes declared: correct it")
        for shape in [(0, 28, 28), (5, 0, 28), (5, 28, 0), (2**32 - 1, 0, 2**32 - 1)]
    ),
    *(  # headers that declare more memory than there may be
        (packed(shape, bytes(1000)), b"", "truncated")
        for shape in [(60_000, 28, 28), (1, 50_000, 50_000), (2**32 - 1, 1, 1), (2**32 - 1,) * 3]
    ),
]


def test_what_is_no_whole_file_of_images_is_refused_with_the_reason(path):
    for content, behind, text in REFUSED:
        path.write_bytes(gzip.compress(content) + behind)
        with peak_memory_below(2e6):
            assert text in assert_refused(path)
    for content in (b"", b"<!DOCTYPE html><html>Not Found</html>", images()):  # not compressed
        path.write_bytes(content)
        assert_refused(path, "cannot be loaded .*single-item download")
    path.unlink()
    assert_refused(path, "not found: run `dvc repro`")


def test_memory_needed_is_that_of_a_block_and_a_gzip_bomb_is_not_unpacked(path):
    size = 2**25
    path.write_bytes(gzip.compress(packed((size // 1024, 32, 32), bytes(size)), 1))
    with peak_memory_below(2e6):
        assert sum(len(block) for block in idx.read_blocks(path, 256)) == size // 1024
    path.write_bytes(gzip.compress(packed((10, 28, 28), bytes(7840 + size)), 1))
    with peak_memory_below(2e6):
        assert_refused(path, "longer than the 10 items")


def decoded(content: bytes) -> tuple[np.ndarray | None, int]:
    """What a genuine file holds by Python's gzip, else None; the bytes that its header declares."""
    try:
        data = gzip.decompress(content)
        dimensions = data[3]
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
    except Exception:
        return None, 0
    magic, data = data[:4], data[4 + 4 * dimensions :]
    genuine = magic[:3] == bytes([0, 0, 8]) and shape and 0 < math.prod(shape) == len(data)
    return np.frombuffer(data, np.uint8).reshape(shape) if genuine else None, math.prod(shape)


FIELDS = (0, 1, 2, 3, 4, 28, 255, 256, 65_536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
ACCIDENTS = (  # flipped bits, cuts, additions, repeats, gaps, other fields in the header
    lambda data, at, draw: replaced(data, at, bytes([data[at] ^ 1 << draw.randrange(8)])),
    lambda data, at, draw: data[:at],
    lambda data, at, draw: data + draw.randbytes(draw.randrange(1, 9)),
    lambda data, at, draw: data[: at + draw.randrange(1, 40)] + data[at:],
    lambda data, at, draw: data[:at] + data[at + draw.randrange(1, 9) :],
    lambda data, at, draw: (
        data[: at // 4 % 4 * 4]
        + struct.pack(">I", draw.choice(FIELDS))
        + data[at // 4 % 4 * 4 + 4 :]
    ),
)


def replaced(data: bytes, at: int, part: bytes) -> bytes:
    return data[:at] + part + data[at + len(part) :]


def damaged(data: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = draw.choice(ACCIDENTS)(data, draw.randrange(len(data)), draw) or b"\0"
    return data


@pytest.mark.parametrize("number", [1000, pytest.param(30_000, marks=pytest.mark.slow)])
def test_of_files_damaged_at_random_those_are_read_that_are_genuine(number, path):
    draw, accepted = random.Random(0), 0
    shapes = [(7,), (300,), (5, 2, 3), (11, 4, 4), (2, 28, 28), (1, 1, 1)]
    contents = [packed(shape, draw.randbytes(math.prod(shape))) for shape in shapes]
    contents.append(packed((40, 28, 28), bytes(40 * 28 * 28)))  # packs to a hundredth
    for _ in range(number):
        content = draw.choice(contents)
        kind = draw.randrange(4)  # damage inside, outside, both, or none
        content = damaged(content, draw) if kind in (0, 2) else content
        content = gzip.compress(content, draw.choice((0, 1)), mtime=0)
        if kind == 3 and draw.randrange(4) == 0:  # an empty member, and padding
            content += gzip.compress(b"", mtime=0) * draw.randrange(2) + bytes(3)
        content = damaged(content, draw) if kind in (1, 2) else content
        path.write_bytes(content)
        expected, declared = decoded(content)
        limit = min(declared, len(content) * idx.DEFLATE_RATIO) + 600_000  # for Python's buffers
        with peak_memory_below(limit) if number == 1000 else nullcontext():
            if expected is None:
                assert_refused(path)
                continue
            found = read(path, 5)
        assert idx.read_shape(path) == found.shape
        np.testing.assert_array_equal(found, expected)
        accepted += 1
    assert 0.05 < accepted / number < 0.95, "else one of the two ways is not tried"
