"""How a stage ends: with its outputs, or with one clear message and a non-zero exit code."""

import argparse
import os
import signal
import sys
from collections.abc import Callable


class UserError(Exception):
    """A fault that the user can correct; it names the thing, what was expected and what found."""


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser, described by the first line of a docstring (`python -OO` leaves these out)."""
    return argparse.ArgumentParser(description=doc and doc.splitlines()[0])


def run_stage(main: Callable[[], None], about: str | None = "") -> None:
    """Call `main` and end the process: code 0 if it returns, else one line on stderr and non-zero.

    Handles UserError, errors of the file system (a full disk, a missing permission) and Ctrl-C.
    Anything else is a bug in the pipeline and keeps its traceback.

    Args:
        main: the script.
        about: its docstring (None with `python -OO`), if it takes no arguments: `--help` shows it,
            others are refused.
    """
    if about != "":
        parser = argparse.ArgumentParser(
            description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.parse_args()
    interrupted = False

    def interrupt(number: int, frame) -> None:
        nonlocal interrupted
        interrupted = True
        sys.unraisablehook = lambda unraisable: None  # ignore KeyboardInterrupt in __del__
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # ignored by jobs in the background
        signal.signal(signal.SIGINT, interrupt)
    try:
        try:
            main()
            sys.stdout.flush()
        finally:  # ignore errors in __del__ of what was left half-made
            sys.unraisablehook = lambda unraisable: None
            if interrupted:  # a library may have turned the interrupt into an error of its own
                raise KeyboardInterrupt
        return
    except UserError as error:
        message, code = str(error), 1
    except BrokenPipeError:  # who reads our output has seen enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # 128 + SIGPIPE, as of other programs
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        message, code = f"{where}{error.strerror or error}; no output is half-written", 1
        if isinstance(error, FileNotFoundError):
            message += ". If a stage makes this file, run `dvc repro`"
    except KeyboardInterrupt:
        message = "interrupted: the next `dvc repro` runs this stage again"
        message, code = f"{message}; training goes on after its last whole epoch", 130
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
