"""However a stage is stopped, it ends with one line, and a job in the background is not stopped."""

import signal
import subprocess
import sys

import pytest
from conftest import ROOT

STAGE = """
import os, signal
from stages.base.stage import run_stage

class Callback:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

def at_once():
    os.kill(os.getpid(), signal.SIGINT)

def made_another_error():  # as matplotlib's drawing of images does
    try:
        at_once()
    except BaseException:
        raise ValueError("Invalid affine transformation matrix") from None

def lost():
    Callback()

run_stage({case})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
@pytest.mark.parametrize("case", ["at_once", "made_another_error", "lost"])
@pytest.mark.parametrize("background", [False, True])
def test_ctrl_c_ends_a_stage_with_one_line_unless_it_runs_in_the_background(
    case: str, background: bool
):
    before = signal.SIG_IGN if background else signal.default_int_handler
    result = subprocess.run(
        [sys.executable, "-c", STAGE.format(case=case)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, before),
    )
    if not background:
        assert result.returncode == 130
        assert result.stderr.startswith("error: interrupted; ")
        assert result.stderr.count("\n") == 1
    else:
        assert (result.returncode, result.stderr) == (0, "")
