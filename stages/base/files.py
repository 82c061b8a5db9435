"""Files that appear whole or not at all."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add this path to errors of the file system that name none, as those in writing do."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds, rename it to `path`.

    When the block fails, the temporary file is removed and `path` stays as it was. Git and DVC
    ignore the suffix `.tmp`; the name is fixed, so the next run overwrites what a kill leaves.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with naming(path):
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        if error.filename and Path(error.filename) == temporary:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_outputs() -> Iterator[Callable[[Path], Path]]:
    """Yield a function from a path to its temporary path; the block's end renames all of them.

    When the block fails, all paths stay as they were. They are renamed from the last to the first.
    A temporary path may itself be written with `atomic_output`.
    """
    with ExitStack() as outputs:
        yield lambda path: outputs.enter_context(atomic_output(path))


def write_json(path: Path, content: dict | list) -> None:
    """Write nested numbers and strings as JSON; floats are rounded to six decimals."""

    rounded = json.loads(json.dumps(content), parse_float=lambda digits: round(float(digits), 6))
    text = json.dumps(rounded, indent=2, ensure_ascii=False)
    with atomic_output(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")


def write_csv(path: Path, frame: "pd.DataFrame", **options) -> None:
    """Write `frame` as CSV, with line feeds on every system; `options` are those of to_csv."""
    with atomic_output(path) as temporary:
        frame.to_csv(temporary, lineterminator="\n", encoding="utf-8", **options)
