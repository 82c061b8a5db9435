"""What `dvc repro` costs beside the steps of training, and what it costs with nothing to do.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --options "$(cat presets/fast.txt)"

The committed project is cloned to a temporary folder and run there on the files in data/raw, with
an empty DVC cache. Then `dvc repro` with nothing to do is timed in turns with `dvc status` of an
empty project. With --options, `dvc exp run` follows in the same clone, with these options: what a
changed param costs where the pipeline has run before.

DVC prints a line when a stage begins: the time between two is that of a stage. The steps of
training are what training itself reports: images over images per second, by epoch.
"""

import argparse
import os
import re
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from benchmarks.bench import RESULTS
from stages.base.data import RAW
from stages.base.files import write_csv
from stages.base.stage import UserError, run_stage

STAGE = re.compile(r"Running stage '(.+)'")
EPOCH = re.compile(r"^epoch \d+/\d+: .* ([\d,]+) images/s$")
STEPS = "training steps"
TURNS = 5


def timed(*command: str, folder: Path) -> float:
    """Seconds that the command takes."""
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def breakdown(*command: str, folder: Path) -> dict[str, float]:
    """Seconds of a DVC command that trains in `folder`, a checkout of the project.

    Returns:
        Seconds before the first stage, of each stage (of `train` without its steps), of the
        training steps, of the whole, and of the whole without the training steps.
    """
    sources = os.environ | {"MNIST_MIRROR": str(RAW.resolve()), "PYTHONUNBUFFERED": "1"}
    at, seconds, rates = "start of DVC", {}, []
    began = last = time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, env=sources, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as run:
        for line in run.stdout:
            if stage := STAGE.search(line):
                now = time.perf_counter()
                seconds[at] = now - last
                at, last = stage[1], now
                print(f"running {at}", flush=True)
            elif epoch := EPOCH.match(line.strip()):
                rates.append((at, int(epoch[1].replace(",", ""))))
    end = time.perf_counter()
    if run.returncode:
        raise UserError(f"`{' '.join(command)}` failed in the clone: see above")
    if not rates:
        raise UserError(
            f"`{' '.join(command)}` trained nothing: choose options that change `train`"
        )
    seconds[at] = end - last
    images = len(np.load(folder / "data/processed/train/labels.npy", mmap_mode="r"))
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    size = params["train"]["batch_size"]
    steps, whole = 0.0, end - began
    for stage, rate in rates:
        of_epoch = images // size * size / rate
        seconds[stage] -= of_epoch
        steps += of_epoch
    return seconds | {STEPS: steps, "whole": whole, f"beside the {STEPS}": whole - steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--options", default="", help='of `dvc exp run`: "-S train.epochs=1"')
    options = parser.parse_args().options
    if not RAW.is_dir():
        raise UserError(f"{RAW} not found: run `dvc repro download` first")
    with tempfile.TemporaryDirectory() as temporary:
        clone, empty = Path(temporary) / "clone", Path(temporary) / "empty"
        timed("git", "clone", "--quiet", str(Path.cwd()), str(clone), folder=Path.cwd())
        empty.mkdir()
        timed("dvc", "init", "--no-scm", "--quiet", folder=empty)
        seconds = {"first run": breakdown("dvc", "repro", "--force", folder=clone)}
        nothing, status = [], []
        for _ in range(TURNS):
            nothing.append(timed("dvc", "repro", folder=clone))
            status.append(timed("dvc", "status", folder=empty))
        seconds["nothing to do"] = {
            "dvc repro (median)": float(np.median(nothing)),
            "dvc status of an empty project (median)": float(np.median(status)),
        }
        if options:
            command = ("dvc", "exp", "run", *shlex.split(options))
            seconds[options.strip()] = breakdown(*command, folder=clone)
    rows = [(run, what, value) for run, parts in seconds.items() for what, value in parts.items()]
    frame = pd.DataFrame(rows, columns=["run", "what", "seconds"])
    write_csv(RESULTS / "overhead.csv", frame, index=False, float_format="%.2f")
    print(frame.round(2).to_string(index=False))
    print(f"nothing to do / empty project: {np.median(nothing) / np.median(status):.2f}")


if __name__ == "__main__":
    run_stage(main)
