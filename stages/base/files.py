"""Outputs appear whole or not at all."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block succeeds, rename it to `path`.

    When the block fails, the temporary file goes and `path` stays as it was. The suffix `.tmp` is
    ignored by Git and DVC; the name is fixed, so what a kill leaves behind the next run overwrites.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # A write that failed does not say where.
        if error.errno and Path(error.filename or temporary) == temporary:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_together() -> Iterator[Callable[[Path], Path]]:
    """Yield a function from a path to its temporary path; the block's end renames all of them.

    When the block fails, all paths stay as they were. They are renamed from the last to the first.
    What is written to a temporary path may itself be written by way of `replacing`.
    """
    with ExitStack() as outputs:
        yield lambda path: outputs.enter_context(replacing(path))
