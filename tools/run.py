"""What `make` runs: the pipeline, and then its result in a few lines.

    python -m tools.run [-S train.epochs=2 ...]

Options are those of `dvc exp run`. If no source of the dataset can be reached, `digits` takes its
place, 1,797 scans that scikit-learn carries; the next run tries the dataset again.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import yaml

from stages.base import params
from stages.base.stage import UserError, run_stage
from stages.dataset.settings import Download
from stages.environment import check_params
from stages.report.corruptions import MNIST_C
from stages.report.scores import percent, wilson_interval
from tools import recover
from tools.compare import Run, conclusion, load_both, load_run

UNREACHABLE = 3  # what stages.download ends with if no source can be reached
FALLBACK = Path(".dvc/tmp/fallback")  # holds the name of the dataset that could not be reached


def dvc(*arguments: str) -> int:
    """Run DVC; its output goes where ours goes."""
    return subprocess.run([sys.executable, "-m", "dvc", *arguments]).returncode


def check(options: list[str]) -> dict | None:
    """Check a copy of params.yaml with the values that `options` set, before DVC loads them.

    DVC stops at a wrong list of seeds before any stage can say what is wrong with it. A value that
    is refused here never gets into params.yaml.

    Returns:
        All params with these values; None if DVC cannot set them so.

    Raises:
        UserError: the message names each value that is wrong, and what was expected.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-S", "--set-param", action="append", default=[])
    values = parser.parse_known_args(options)[0].set_param
    with TemporaryDirectory() as folder:
        copy = shutil.copy(params.PARAMS, folder)
        if values:
            try:
                apply_overrides(copy, values)
            except DvcException:
                return None  # an unknown key, several values: DVC says what it makes of these
        with contextlib.chdir(folder):
            check_params()
        return yaml.safe_load(Path(copy).read_text(encoding="utf-8"))


def run(options: list[str]) -> None:
    """Run what has changed, on `digits` if the dataset cannot be reached.

    Raises:
        UserError: the run failed; DVC and the stage have said why.
    """
    dataset = params.load("download", Download).dataset
    if FALLBACK.is_file() and dataset == "digits" and "download.dataset" not in str(options):
        dataset = FALLBACK.read_text(encoding="utf-8")
        print(f"Trying {dataset} again, which could not be reached the last time.", flush=True)
        options = [*options, "-S", f"download.dataset={dataset}"]
    check(options)
    FALLBACK.unlink(missing_ok=True)
    if dvc(*(["exp", "run", *options] if options else ["repro"])) == 0:
        return
    stage = subprocess.run([sys.executable, "-m", "stages.download"], capture_output=True)
    if stage.returncode == UNREACHABLE:
        dataset = params.load("download", Download).dataset
        print(
            f"\nNo source of {dataset} can be reached: running on digits instead, 1,797 small "
            "scans that\nscikit-learn carries. params.yaml says so; the next `make` tries "
            f"{dataset} again, and `make undo`\ngoes back at once.\n",
            flush=True,
        )
        FALLBACK.write_text(dataset, encoding="utf-8")
        if dvc("exp", "run", *options, "-S", "download.dataset=digits") == 0:
            return
    raise UserError("the run failed: see above")


def summary(found: Run, compared: str) -> str:
    """The result of a run in a few lines, one of them on how it compares with the committed run."""
    errors = len(found.misclassified)
    low, high = map(percent, wilson_interval(found.images - errors, found.images).values())
    corrupted = pd.read_csv("metrics/corruptions.csv", index_col=0)["error"][list(MNIST_C)]
    epochs = 50 if found.dataset == "digits" else 2  # an epoch on digits is a few steps
    return f"""\
{found.dataset}: {percent(found.accuracy)} of {found.images:,} test images correct \
({errors:,} errors; 95 % interval {low} to {high}).
Corrupted images: {percent(corrupted.mean())} misclassified on average, \
at most {percent(corrupted.max())}.
{compared}
Pictures: plots/evaluate, plots/robustness; all on a page: dvc plots show
Try next: make fast, or dvc exp run -S train.epochs={epochs}; then dvc metrics diff
Go back to the committed run: make undo"""


def main() -> None:
    recover.main()
    run(sys.argv[1:])
    try:
        compared = conclusion(*load_both("HEAD"), "the committed run")
    except UserError as error:
        compared = f"No comparison: {error}."
    print(f"\n{summary(load_run(), compared)}")


if __name__ == "__main__":
    run_stage(main)
