"""What `dvc repro` costs beside the steps of training, and what it costs with nothing to do.

    python -m benchmarks.overhead

The committed project is cloned to a temporary folder and run there on the files in data/raw, with
an empty DVC cache. DVC prints a line when a stage begins: the time between two is that of a stage.
Steps of training are what training itself reports: images over images per second, by epoch.
Then `dvc repro` with nothing left to do is timed in turns with `dvc status` of an empty project.
"""

import argparse
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.bench import RESULTS
from stages.base.files import replacing
from stages.dataset.catalogue import RAW
from stages.base.stage import UserError, run_stage

STAGE = re.compile(r"Running stage '(.+)'")
EPOCH = re.compile(r"^epoch \d+/\d+: .* ([\d,]+) images/s$")
STEPS = "training steps"
TURNS = 5


def timed(*command: str, folder: Path) -> float:
    """Seconds that the command takes; its output is shown only if it fails."""
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def breakdown(folder: Path, images: int) -> dict[str, float]:
    """Run all stages in `folder`: seconds by stage, before the first, and of training steps.

    Args:
        folder: a checkout of the project.
        images: how many a network sees per epoch.
    """
    sources = os.environ | {"MNIST_MIRROR": str(RAW.resolve()), "PYTHONUNBUFFERED": "1"}
    at, seconds, steps = "start of DVC", {}, 0.0
    began = last = time.perf_counter()
    with subprocess.Popen(
        ["dvc", "repro", "--force"], cwd=folder, env=sources, stdout=subprocess.PIPE, text=True
    ) as run:
        for line in run.stdout:
            if stage := STAGE.search(line):
                now = time.perf_counter()
                seconds[at] = seconds.get(at, 0) + now - last
                at, last = stage[1], now
                print(f"running {at}", flush=True)
            elif epoch := EPOCH.match(line.strip()):
                steps += images / int(epoch[1].replace(",", ""))
    if run.returncode:
        raise UserError("dvc repro failed in the clone: see above")
    end = time.perf_counter()
    seconds[at] = seconds.get(at, 0) + end - last
    training = next(name for name in seconds if name.startswith("train@"))
    seconds[training] -= steps
    return seconds | {STEPS: steps, "whole": end - began}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if not RAW.is_dir():
        raise UserError(f"{RAW} not found: run `dvc repro download` first")
    with tempfile.TemporaryDirectory() as temporary:
        clone, empty = Path(temporary) / "clone", Path(temporary) / "empty"
        timed("git", "clone", "--quiet", str(Path.cwd()), str(clone), folder=Path.cwd())
        empty.mkdir()
        timed("dvc", "init", "--no-scm", "--quiet", folder=empty)
        training = np.load("data/processed/train_labels.npy", mmap_mode="r")
        seconds = breakdown(clone, len(training))
        nothing, status = [], []
        for _ in range(TURNS):
            nothing.append(timed("dvc", "repro", folder=clone))
            status.append(timed("dvc", "status", folder=empty))
        shutil.rmtree(clone)
    seconds["beside the training steps"] = seconds["whole"] - seconds[STEPS]
    seconds["dvc repro, nothing to do (median)"] = float(np.median(nothing))
    seconds["dvc status, empty project (median)"] = float(np.median(status))
    frame = pd.DataFrame({"what": seconds.keys(), "seconds": seconds.values()})
    with replacing(RESULTS / "overhead.csv") as path:
        frame.to_csv(path, index=False, lineterminator="\n", float_format="%.2f")
    print(frame.round(2).to_string(index=False))
    print(f"nothing to do / empty project: {np.median(nothing) / np.median(status):.2f}")


if __name__ == "__main__":
    run_stage(main)
