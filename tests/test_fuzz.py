"""The readers of files from outside, fed with damage made up by machine.

Whatever comes in, a reader gives what an independent decoder finds in it, or refuses it with one
line that names the file; it needs no more memory than the file declares and its size allows.
Hypothesis makes up a few hundred inputs, and finds the smallest that fails; a fast mutation of
genuine files makes a million in the slow run. Both draw the same inputs each time.
"""

import gzip
import importlib.util
import math
import os
import random
import re
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.dataset import idx
from stages.base import params
from stages.base.stage import UserError

SLACK = 600_000  # bytes of Python's own buffers, and of an error with its message
DIMENSIONS = (1, 3)  # of labels and of images
FIELDS = (0, 1, 2, 3, 4, 28, 255, 256, 65_536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
quick = settings(
    max_examples=200,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file to write inputs to, in memory where the system has a folder for that."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        return tmp_path / "input"
    return memory / f"{tmp_path.parent.name}-{tmp_path.name}"


@pytest.fixture(autouse=True)
def _leave_nothing(path: Path):
    yield
    path.unlink(missing_ok=True)


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
        allowed = min(declared(packed, dimensions), len(packed) * idx.DEFLATE_RATIO, idx.LIMIT)
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


@quick
@given(packed=st.binary(max_size=200), dimensions=st.sampled_from(DIMENSIONS))
def test_noise_is_refused(packed, dimensions, path):
    assert not check_idx(packed, dimensions, path)


@quick
@given(
    shape=st.lists(st.sampled_from(FIELDS) | st.integers(0, 20), min_size=1, max_size=4),
    data=st.binary(max_size=300),
    excess=st.binary(max_size=3),
    exact=st.booleans(),
    dimensions=st.sampled_from(DIMENSIONS),
)
def test_headers_are_not_believed(shape, data, excess, exact, dimensions, path):
    if exact and math.prod(shape) <= 20**4:
        data = (data + bytes(math.prod(shape)))[: math.prod(shape)] + excess
    check_idx(gzip.compress(idx_content(shape, data)), dimensions, path)


def test_damaged_idx_files_are_told_from_genuine_ones_in_bounded_memory(path, record_property):
    tracemalloc.start()
    try:
        accepted = fuzz_idx(3000, path, memory=True)
    finally:
        tracemalloc.stop()
    assert 100 < accepted < 2900, "else one of the two ways is not tried"
    record_property("inputs fuzzed", 3000)


@pytest.mark.slow
def test_a_million_damaged_idx_files(path, record_property):
    accepted = fuzz_idx(1_000_000, path, memory=False)
    record_property("inputs fuzzed", 1_000_000)
    record_property("of these still genuine, and read", accepted)


WORDS = r"""
null ~ true no 0 -1 1 0.5 1e-4 1.0e-4 1e400 .nan .inf -.inf 0x10 0o7 1:30 2024-01-01 ''
[] {} [0] [0,0] {a:1} [[ ]] { } - : ? & * | > % @ ` # << ! !!int !!float !!bool !!null !!binary
!!timestamp !!set !!omap !!pairs !!str !!python/name:os.system !!python/object/apply:os.mkdir
&a *a --- ... "x" "\ud800" "\0" "\n" mnist
"""
UNUSUAL = [" ", "\n", "\n  ", "\t", "\r", "\0", ": ", "\u00e9", "\u2028", "\ufeff"]
LONG = ["0x" + "f" * 5000, "9" * 5000, "[" * 400]
TOKENS = [*WORDS.split(), *UNUSUAL, *LONG]


def check_params(text: bytes, path: Path) -> bool:
    """Load `text` as params.yaml; check the answer; return whether it was accepted."""
    path.write_bytes(text)
    try:
        loaded = params.load(path)
    except UserError as error:
        loaded, message = None, str(error)
    if loaded is None:
        assert message.startswith(str(path))
        assert message.isprintable()
        assert len(message) < 10_000 + 10 * len(text)
        return False
    values = loaded.model_dump()
    assert values == yaml.safe_load(text.decode())
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert params.load(path) == loaded
    return True


def edited(text: str, draw: random.Random) -> str:
    """`text` after one to three slips: a value, a word, a line replaced, lost or repeated."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        lines = text.split("\n")
        place, token = draw.randrange(len(lines)), draw.choice(TOKENS)
        slip = draw.randrange(8)
        if slip <= 2:
            lines[place] = f"{lines[place].split(':')[0]}: {token}"
        elif slip == 3:
            lines[place] = f"{lines[place].split(':')[0]}: {draw.choice(FIELDS) * draw.random():.3}"
        elif slip == 4:
            lines.insert(draw.randrange(len(lines)), lines[place])
        elif slip == 5:
            del lines[place]
        else:
            start = draw.randrange(len(lines[place]) + 1)
            stop = start + draw.randrange(4) * (slip == 7)
            lines[place] = lines[place][:start] + token + lines[place][stop:]
        text = "\n".join(lines)
    return text


def fuzz_params(number: int, path: Path) -> int:
    """Load `number` edited versions of the project's params; return how many were accepted."""
    draw = random.Random(0)
    text = yaml.safe_dump(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    accepted = 0
    for _ in range(number):
        if draw.randrange(10):
            changed = edited(text, draw).encode(errors="surrogatepass")
        else:
            changed = damaged(text.encode(), draw)
        accepted += check_params(changed, path)
    return accepted


def test_edited_params_are_taken_as_they_stand_or_refused(path, record_property):
    accepted = fuzz_params(300, path)
    assert 10 < accepted < 290, "else one of the two ways is not tried"
    record_property("inputs fuzzed", 300)


@pytest.mark.slow
def test_many_edited_params(path, record_property):
    accepted = fuzz_params(50_000, path)
    record_property("inputs fuzzed", 50_000)
    record_property("of these still valid params", accepted)


@quick
@given(text=st.text(max_size=200) | st.lists(st.sampled_from(TOKENS)).map(" ".join))
def test_text_that_is_no_params_is_refused(text, path):
    assert not check_params(text.encode(errors="surrogatepass"), path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@quick
@given(data=st.data(), value=VALUES)
def test_any_value_at_any_key_is_taken_as_it_is_or_refused(data, value, path):
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    section = content
    while True:
        key = data.draw(st.sampled_from([*section, "new"]))
        if not isinstance(section.get(key), dict) or data.draw(st.booleans()):
            break
        section = section[key]
    section[key] = value
    check_params(yaml.safe_dump(content).encode(), path)


@pytest.mark.parametrize(
    "line",
    ["b{0}: &b{0} [*b{1}, *b{1}]", "b{0}: &b{0} {{<<: [*b{1}, *b{1}]}}"],
    ids=["lists", "merged mappings"],
)
def test_params_that_would_unfold_to_gigabytes_are_refused(line, path):
    lines = ["b0: &b0 {a: 1}", *(line.format(i, i - 1) for i in range(1, 40))]
    text = (ROOT / "params.yaml").read_text(encoding="utf-8") + "\n".join(lines)
    tracemalloc.start()
    try:
        assert not check_params(text.encode(), path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["idx", "params"])
def test_inputs_guided_by_coverage(reader: str, path: Path, tmp_path: Path, record_property):
    """atheris changes inputs until they reach new lines of the readers and of what these call."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed; CI does it where there is one for its Python")
    start = tmp_path / "start"
    start.mkdir()
    image = idx_content((2, 3, 3), bytes(18))
    genuine = image if reader == "idx" else (ROOT / "params.yaml").read_bytes()
    (start / "genuine").write_bytes(genuine)
    program = [sys.executable, str(ROOT / "tests/guided/readers.py"), reader, str(path)]
    limits = ["-max_total_time=40", "-seed=1", "-rss_limit_mb=2000", "-timeout=20"]
    result = subprocess.run(
        [*program, *limits, str(start)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    tried = int(re.findall(r"Done (\d+) runs", result.stderr)[-1])
    assert tried > 1000
    record_property("inputs guided by coverage", tried)
