"""Is this branch really better? The workspace's run against that of a Git revision.

    python -m tools.compare main

Two accuracies close to each other say little: both come from the same test images. McNemar's exact
test looks at the images that only one of the two classifies correctly; if neither were better, each
of them would fall to either side like a coin (Q. McNemar, 1947). The misclassified images are in
Git, so this works on a fresh clone without a DVC remote.
"""

import argparse
import io
import subprocess
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml
from scipy import stats

from stages.base.stage import UserError, run_stage
from stages.dataset import catalogue
from stages.report.scores import percent

MISCLASSIFIED = "metrics/misclassified.csv"
SIGNIFICANCE = 0.05


class Run(NamedTuple):
    """A run's dataset, its number of test images, and the indices of the misclassified ones."""

    dataset: str
    images: int
    misclassified: frozenset[int]

    @property
    def accuracy(self) -> float:
        return 1 - len(self.misclassified) / self.images


def p_value(here: Run, there: Run) -> float:
    """Of McNemar's exact test, two-sided, for two runs on the same test images."""
    only_here = len(there.misclassified - here.misclassified)
    decisive = len(there.misclassified ^ here.misclassified)
    return float(stats.binomtest(only_here, decisive).pvalue) if decisive else 1.0


def conclusion(here: Run, there: Run, name: str) -> str:
    """One plain sentence: is the workspace's run better than another, called `name`, or chance?"""
    if here.misclassified == there.misclassified:
        return f"The workspace and {name} misclassify the same images."
    chance = p_value(here, there)
    sentence = f"No evidence that the workspace and {name} differ"
    if chance < SIGNIFICANCE:
        verdict = "better" if here.accuracy > there.accuracy else "worse"
        sentence = f"The workspace is {verdict} than {name}"
    share = "less than 0.01 %" if chance < 1e-4 else percent(chance)
    return f"{sentence}: without a real difference, chance shows one as large in {share} of cases."


def load_run(revision: str | None = None) -> Run:
    """The run in the workspace, or that in a Git revision.

    Raises:
        UserError: there is no run, or no such revision.
    """

    def text(path: str) -> str:
        if revision is None:
            if not Path(path).is_file():
                raise UserError(f"{path} not found: run `dvc repro` first")
            return Path(path).read_text(encoding="utf-8")
        command = ["git", "show", f"{revision}:{path}"]
        shown = subprocess.run(command, capture_output=True, encoding="utf-8")
        if shown.returncode:
            raise UserError(f"no run in {revision}: {shown.stderr.strip().removeprefix('fatal: ')}")
        return shown.stdout

    dataset = yaml.safe_load(text("params.yaml"))["download"]["dataset"]
    frame = pd.read_csv(io.StringIO(text(MISCLASSIFIED)))
    return Run(dataset, catalogue.find(dataset).test_images, frozenset(frame["index"].tolist()))


def load_both(revision: str) -> tuple[Run, Run]:
    """The runs in the workspace and in a revision.

    Raises:
        UserError: one is missing, or they are of different datasets.
    """
    here, there = load_run(), load_run(revision)
    if here.dataset != there.dataset:
        runs = f"{revision} is a run on {there.dataset}, the workspace one on {here.dataset}"
        raise UserError(f"{runs}: their test images differ")
    return here, there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="a branch, tag or commit whose run is committed")
    revision = parser.parse_args().revision
    here, there = load_both(revision)
    print(f"{here.dataset}, {here.images:,} test images")
    print(f"  accuracy here              {percent(here.accuracy)}")
    print(f"  accuracy of {revision:<14} {percent(there.accuracy)}")
    for name, run, other in (("here", here, there), (f"in {revision}", there, here)):
        indices = sorted(other.misclassified - run.misclassified)
        listed = ", ".join(map(str, indices[:10])) + (", …" if len(indices) > 10 else "")
        print(f"  correct only {name:<13} {len(indices)}{f' ({listed})' if indices else ''}")
    print(conclusion(here, there, revision))


if __name__ == "__main__":
    run_stage(main)
