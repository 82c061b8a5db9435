"""Is this branch really better? The last run's predictions against those of a Git revision.

    python -m stages.compare main

Two accuracies close to each other say little: both come from the same test images. McNemar's exact
test looks at the images that only one of the two gets right; if neither were better, each of them
would fall to either side like a coin (Q. McNemar, 1947). All that this needs is in Git: it works on
a fresh clone without a DVC remote.
"""

import argparse
import io
import json
import subprocess
from dataclasses import asdict, dataclass

import pandas as pd
from scipy import stats

from stages.base.stage import UserError, run_stage

METRICS = "metrics/evaluate.json"
PREDICTIONS = "plots/confusion.csv"
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """What two sets of predictions for the same images show.

    accuracy, other_accuracy: share of images read rightly.
    only_this, only_other: indices of the test images that only one of the two reads rightly.
    p_value: of McNemar's exact test, two-sided.
    """

    images: int
    accuracy: float
    other_accuracy: float
    only_this: list[int]
    only_other: list[int]
    p_value: float

    def conclusion(self, revision: str) -> str:
        """One plain sentence."""
        if self.p_value < SIGNIFICANCE:
            verdict = "better" if len(self.only_this) > len(self.only_other) else "worse"
            return (
                f"The workspace is {verdict} than {revision}: without a real difference, chance "
                f"would show one as large in {self.p_value:.2%} of cases."
            )
        return (
            f"No evidence that the workspace and {revision} differ: without a real difference, "
            f"chance would show one as large in {self.p_value:.0%} of cases."
        )


def compare(this: pd.DataFrame, other: pd.DataFrame) -> Comparison:
    """Compare predictions for the same images.

    Args:
        this, other: columns index, actual, predicted; a row per image in the same order.
    """
    right, other_right = (frame["predicted"] == frame["actual"] for frame in (this, other))
    only_this = this["index"][right & ~other_right].tolist()
    only_other = this["index"][other_right & ~right].tolist()
    decisive = len(only_this) + len(only_other)
    p_value = stats.binomtest(len(only_this), decisive).pvalue if decisive else 1.0
    return Comparison(
        len(this),
        float(right.mean()),
        float(other_right.mean()),
        only_this,
        only_other,
        float(p_value),
    )


def read(path: str, revision: str | None) -> str:
    """The text of a file in the workspace, or of a Git revision.

    Raises:
        UserError: there is no such revision, or no such file in it.
    """
    if revision is None:
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            raise UserError(f"{path} not found: run `dvc repro` first") from None
    known = _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if known.returncode:
        reason = " ".join(known.stderr.split()) or "no such branch, tag or commit"
        raise UserError(f"revision {revision!r}: {reason}")
    shown = _git("show", f"{revision}:{path}")
    if shown.returncode:
        raise UserError(f"revision {revision!r} has no {path}: was `dvc repro` committed there?")
    return shown.stdout


def _git(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, encoding="utf-8")


def read_run(revision: str | None) -> tuple[str, pd.DataFrame]:
    """Data set and predictions of the run in a revision, or in the workspace."""
    where = "the workspace" if revision is None else f"revision {revision!r}"
    try:
        dataset = json.loads(read(METRICS, revision))["dataset"]
        frame = pd.read_csv(io.StringIO(read(PREDICTIONS, revision)), dtype={"index": int})
        return dataset, frame[["index", "actual", "predicted"]].astype({"index": int})
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: {METRICS} or {PREDICTIONS} is damaged: {error}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="a branch, tag or commit whose run is committed")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    arguments = parser.parse_args()
    dataset, this = read_run(None)
    other_dataset, other = read_run(arguments.revision)
    if dataset != other_dataset:
        raise UserError(
            f"the data sets differ: {dataset} here, {other_dataset} in {arguments.revision!r}"
        )
    if not this[["index", "actual"]].equals(other[["index", "actual"]]):
        raise UserError(
            f"the test images differ: {len(this):,} here, {len(other):,} in {arguments.revision!r}"
            + (", with other labels" if len(this) == len(other) else "")
        )
    result = compare(this, other)
    conclusion = result.conclusion(arguments.revision)
    if arguments.json:
        print(json.dumps(asdict(result) | {"conclusion": conclusion}))
        return
    print(f"{dataset}, {result.images:,} test images")
    print(f"  accuracy here            {result.accuracy:.2%}")
    print(f"  accuracy of {arguments.revision:<12} {result.other_accuracy:.2%}")
    for name, indices in (("here", result.only_this), (arguments.revision, result.only_other)):
        listed = ", ".join(map(str, indices[:20])) + (", …" if len(indices) > 20 else "")
        print(f"  right only {name:<13} {len(indices)}{f' ({listed})' if indices else ''}")
    print(f"  McNemar's exact p-value  {result.p_value:.4f}")
    print(conclusion)


if __name__ == "__main__":
    run_stage(main)
