"""How a stage fails: one clear message, a non-zero exit code, no traceback for a user's mistake."""

import gc
import signal
import sys
from collections.abc import Callable


class UserError(Exception):
    """A fault the user can mend; the message names the thing, what was expected and what was found.

    `exit_code` is what the process ends with: 1 unless a caller has to tell this fault apart.
    """

    exit_code = 1


def run_stage(main: Callable[[], None]) -> None:
    """Call `main` and end the process: 0 if it returns, else one line on stderr and non-zero.

    Handles UserError, errors of the file system (a full disk, a missing permission) and Ctrl-C.
    Anything else is a bug in the pipeline and keeps its traceback.
    """
    gc.freeze()  # what has been imported stays: not to be looked through again
    gc.enable()  # see stages/__init__.py
    interrupted = False

    def interrupt(number: int, frame) -> None:
        nonlocal interrupted
        interrupted = True
        sys.unraisablehook = lambda unraisable: None  # of objects cut off in the making
        raise KeyboardInterrupt

    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a job in the background
            signal.signal(signal.SIGINT, interrupt)  # see stages/__init__.py
        try:
            main()
        finally:
            if interrupted:  # native code may have lost it, or made another error of it
                raise KeyboardInterrupt
    except UserError as error:
        sys.exit(_fail(str(error), error.exit_code))
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(_fail(f"{where}{error.strerror or error}; no output is half-written", 1))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted; nothing was saved, the next `dvc repro` runs this stage", 130))


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code
