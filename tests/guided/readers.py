"""Fuzzing of the readers, guided by coverage: `python readers.py idx|params FILE [options]`.

test_fuzz.py runs it, with atheris, for a bounded time. Any error but UserError ends it and shows
the input that caused it; what is accepted must be what the file holds. Inputs are put in FILE.
"""

import gzip
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["stages", "yaml", "gzip"]):
    from stages.base import stage as errors
    from stages.dataset import idx
    from stages.base import params

reader, path = sys.argv[1], Path(sys.argv[2])


def read(data: bytes) -> None:
    path.write_bytes(idx_file(data) if reader == "idx" else data)
    try:
        if reader == "idx":
            blocks = list(idx.read_blocks(path, 3))
            # Header and items, written again, are what was read.
            assert data[16:] == b"".join(block.tobytes() for block in blocks)
        else:
            values = params.load(path)
            assert type(values)(**values.model_dump()) == values
    except errors.UserError:
        pass


def idx_file(data: bytes) -> bytes:
    """The damaged content in an intact gzip file: how gzip is damaged, test_fuzz.py tries."""
    return gzip.compress(data, 1)


atheris.Setup([sys.argv[0], *sys.argv[3:]], read)
atheris.Fuzz()
