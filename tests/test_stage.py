"""A stage that is stopped or fails ends with one line; in the background Ctrl-C is ignored."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run

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
FAULT = """
from stages.base.stage import UserError, run_stage

def main():
    raise {}

run_stage(main)
"""


def interruptible(*arguments: str, before=signal.default_int_handler, **environment: str):
    """Run Python with SIGINT handled in this way when it starts."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, before),
    )


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")


@POSIX
@pytest.mark.parametrize("case", ["at_once", "made_another_error", "lost"])
@pytest.mark.parametrize("background", [False, True])
def test_ctrl_c_ends_a_stage_with_one_line_unless_in_the_background(case, background):
    before = signal.SIG_IGN if background else signal.default_int_handler
    result = interruptible("-c", STAGE.format(case=case), before=before)
    if not background:
        assert result.returncode == 130
        assert result.stderr.startswith("error: interrupted: ")
        assert result.stderr.count("\n") == 1
    else:
        assert (result.returncode, result.stderr) == (0, "")


@POSIX
@pytest.mark.parametrize("module", ["stages.preprocess", "stages.train", "apps.classify"])
def test_ctrl_c_while_a_module_is_imported_prints_nothing(module: str, tmp_path: Path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    (tmp_path / "numpy.py").write_text(code, encoding="utf-8")
    result = interruptible("-m", module, "--seed=0", PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        ("UserError('params.yaml: no')", 1, "error: params.yaml: no\n"),
        ("(t := type('', (), {'__del__': lambda t: 1 / 0})()) and UserError('x')", 1, "error: x\n"),
        (
            "OSError(28, 'No space left on device', 'data/x')",
            1,
            "error: data/x: No space left on device; no output is half-written\n",
        ),
        (
            "FileNotFoundError(2, 'No such file', 'data/x')",
            1,
            "error: data/x: No such file; no output is half-written. If a stage makes this file, "
            "run `dvc repro`\n",
        ),
    ],
)
def test_a_fault_of_the_user_or_of_the_disk_ends_a_stage_with_one_line(raised, code, message):
    result = run("python", "-c", FAULT.format(raised), cwd=ROOT, check=False)
    assert (result.returncode, result.stderr) == (code, message)


def test_a_bug_keeps_its_traceback():
    result = run("python", "-c", FAULT.format("KeyError('x')"), cwd=ROOT, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")


@POSIX
@pytest.mark.parametrize("written", ["print('x' * 10**6, flush=True)", "print('x')"])
def test_output_that_nobody_reads_to_the_end_is_no_error(written):
    """As with `| head`."""
    code = f"from stages.base.stage import run_stage; run_stage(lambda: {written})"
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.skipif(
    not Path(sys.prefix, "installed").exists(), reason="this environment is not one that make made"
)
def test_programs_start_from_any_folder(tmp_path: Path):
    for program in (["-m", "apps.classify"], [str(ROOT / "stages/preprocess.py")]):
        assert "usage" in run("python", *program, "--help", cwd=tmp_path, PYTHONPATH="").stdout
