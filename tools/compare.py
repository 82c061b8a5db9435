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
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from scipy import stats

from stages.base.stage import UserError, run_stage
from stages.dataset import catalogue
from stages.report.scores import percent

MISCLASSIFIED = "metrics/misclassified.csv"
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Run:
    """A run's dataset, its number of test images, and the indices of the misclassified ones."""

    dataset: str
    images: int
    misclassified: frozenset[int]

    @property
    def accuracy(self) -> float:
        return 1 - len(self.misclassified) / self.images


@dataclass(frozen=True)
class Comparison:
    """What two runs on the same test images show.

    only_here, only_there: indices of the test images that only one of the two classifies correctly.
    p_value: of McNemar's exact test, two-sided.
    """

    accuracy_here: float
    accuracy_there: float
    only_here: list[int]
    only_there: list[int]
    p_value: float

    def conclusion(self, revision: str) -> str:
        """One plain sentence."""
        if not self.only_here and not self.only_there:
            return f"The workspace and {revision} misclassify the same images."
        share = "less than 0.01 %" if self.p_value < 1e-4 else percent(self.p_value)
        if self.p_value < SIGNIFICANCE:
            verdict = "better" if len(self.only_here) > len(self.only_there) else "worse"
            sentence = f"The workspace is {verdict} than {revision}"
        else:
            sentence = f"No evidence that the workspace and {revision} differ"
        if self.p_value == 1:
            return f"{sentence}."
        return (
            f"{sentence}: without a real difference, chance shows one as large in {share} of cases."
        )


def compare(here: Run, there: Run) -> Comparison:
    """Compare two runs on the same test images."""
    only_here = sorted(there.misclassified - here.misclassified)
    only_there = sorted(here.misclassified - there.misclassified)
    decisive = len(only_here) + len(only_there)
    p_value = stats.binomtest(len(only_here), decisive).pvalue if decisive else 1.0
    return Comparison(here.accuracy, there.accuracy, only_here, only_there, float(p_value))


def load_run(revision: str | None) -> Run:
    """The run in a Git revision, or, without one, in the workspace.

    Raises:
        UserError: there is no such revision, or no run in it.
    """
    params = yaml.safe_load(_text("params.yaml", revision))
    dataset = params["download"]["dataset"]
    frame = pd.read_csv(io.StringIO(_text(MISCLASSIFIED, revision)))
    return Run(dataset, catalogue.find(dataset).test_images, frozenset(frame["index"].tolist()))


def _text(path: str, revision: str | None) -> str:
    if revision is None:
        if not Path(path).is_file():
            raise UserError(f"{path} not found: run `dvc repro` first")
        return Path(path).read_text(encoding="utf-8")
    if _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").returncode:
        raise UserError(f"revision {revision!r}: no such branch, tag or commit")
    shown = _git("show", f"{revision}:{path}")
    if shown.returncode:
        raise UserError(f"revision {revision!r} has no {path}: was a run committed there?")
    return shown.stdout


def _git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, encoding="utf-8")


def compare_with(revision: str) -> tuple[Run, Comparison]:
    """The workspace's run, and how it compares with that of a revision.

    Raises:
        UserError: there is no such run, or it is of another dataset.
    """
    here, there = load_run(None), load_run(revision)
    if here.dataset != there.dataset:
        raise UserError(
            f"the datasets differ: {here.dataset} here, {there.dataset} in {revision!r}"
        )
    return here, compare(here, there)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="a branch, tag or commit whose run is committed")
    revision = parser.parse_args().revision
    here, result = compare_with(revision)
    print(f"{here.dataset}, {here.images:,} test images")
    print(f"  accuracy here              {percent(result.accuracy_here)}")
    print(f"  accuracy of {revision:<14} {percent(result.accuracy_there)}")
    for name, indices in (("here", result.only_here), (f"in {revision}", result.only_there)):
        listed = ", ".join(map(str, indices[:10])) + (", …" if len(indices) > 10 else "")
        print(f"  correct only {name:<13} {len(indices)}{f' ({listed})' if indices else ''}")
    p_value = "< 0.0001" if result.p_value < 1e-4 else f"{result.p_value:.4f}"
    print(f"  McNemar's exact p-value    {p_value}")
    print(result.conclusion(revision))


if __name__ == "__main__":
    run_stage(main)
