"""Is this model really better? The workspace's against that of an experiment, branch or commit.

    python -m tools.compare main

Two accuracies close to each other say little: both come from the same test images. McNemar's exact
test looks at the images that only one of the two classifies correctly; if neither were better, each
of them would fall to either side like a coin (Q. McNemar, 1947). The misclassified images are in
Git, so this works on a fresh clone without a DVC remote.
"""

import io
import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from scipy import stats

from stages.base.stage import UserError, arguments, run_stage
from stages.report.scores import percent
from tools.experiments import git

SIGNIFICANCE = 0.05
NOTE = """These are two models: with another seed the same settings train another one. To compare
settings, train several seeds of each (-S 'seeds=[0,1,2]') and see mean and std: dvc metrics diff"""


class Run(NamedTuple):
    """A run: its dataset, its number of test images by class, which of them are misclassified."""

    dataset: str
    classes: dict[str, int]
    misclassified: frozenset[int]

    @property
    def images(self) -> int:
        return sum(self.classes.values())

    @property
    def accuracy(self) -> float:
        return 1 - len(self.misclassified) / self.images


def p_value(here: Run, there: Run) -> float:
    """Of McNemar's exact test, two-sided, for two runs on the same test images."""
    only_here = len(there.misclassified - here.misclassified)
    decisive = len(there.misclassified ^ here.misclassified)
    return float(stats.binomtest(only_here, decisive).pvalue) if decisive else 1.0


def conclusion(here: Run, there: Run, name: str) -> str:
    """One plain sentence: is the workspace's model better than that of `name`, or is it chance?"""
    if here.misclassified == there.misclassified:
        return f"The models of the workspace and of {name} misclassify the same images."
    chance = p_value(here, there)
    sentence = f"No evidence that the models of the workspace and of {name} differ"
    if chance < SIGNIFICANCE:
        verdict = "better" if here.accuracy > there.accuracy else "worse"
        sentence = f"The model of the workspace is {verdict} than that of {name}"
    share = "less than 0.01 %" if chance < 1e-4 else percent(chance)
    return f"{sentence}: without a real difference, chance shows one as large in {share} of cases."


def revision_of(name: str) -> str:
    """A branch, tag, commit or experiment as Git names it; of several experiments the newest."""
    try:
        return git("rev-parse", "--verify", f"{name}^{{commit}}")[0]
    except UserError:
        newest = ("--sort=-creatordate", "--count=1", "--format=%(refname)")
        if found := git("for-each-ref", *newest, f"refs/exps/*/*/{name}"):
            return found[0]
    raise UserError(f"no branch, tag, commit or experiment {name!r}: see `make experiments`")


def load_run(name: str | None = None) -> Run:
    """The run in the workspace, or that in a Git revision or an experiment.

    Raises:
        UserError: there is no run, or nothing of that name.
    """
    revision = revision_of(name) if name else None

    def table(name: str) -> pd.DataFrame:
        return pd.read_csv(io.StringIO(text(f"metrics/{name}.csv")), index_col=0)

    def text(path: str) -> str:
        try:
            if revision:
                return "\n".join(git("show", f"{revision}:{path}"))
            return Path(path).read_text(encoding="utf-8")
        except (UserError, FileNotFoundError):
            where = f"in {name}" if name else "here: run `dvc repro` first"
            raise UserError(f"no {path} {where}") from None

    dataset = json.loads(text("metrics/evaluate.json"))["dataset"]
    classes = table("confusion_matrix").sum(axis=1)  # a row per class
    return Run(dataset, classes.to_dict(), frozenset(table("misclassified").index))


def load_both(name: str) -> tuple[Run, Run]:
    """The runs in the workspace and in a revision or an experiment.

    Raises:
        UserError: one is missing, or they are of different test images.
    """
    here, there = load_run(), load_run(name)
    if here[:2] != there[:2]:
        runs = [f"{run.images:,} test images of {run.dataset}" for run in (here, there)]
        raise UserError(f"the workspace has a run on {runs[0]}, {name} one on other {runs[1]}")
    return here, there


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("name", help="an experiment, or a branch, tag or commit with its run")
    name = parser.parse_args().name
    here, there = load_both(name)
    print(f"{here.dataset}, {here.images:,} test images")
    print(f"  accuracy here              {percent(here.accuracy)}")
    print(f"  accuracy of {name:<14} {percent(there.accuracy)}")
    for title, run, other in (("here", here, there), (f"in {name}", there, here)):
        indices = sorted(other.misclassified - run.misclassified)
        listed = ", ".join(map(str, indices[:10])) + (", …" if len(indices) > 10 else "")
        print(f"  correct only {title:<13} {len(indices)}{f' ({listed})' if indices else ''}")
    print(f"{conclusion(here, there, name)}\n{NOTE}")


if __name__ == "__main__":
    run_stage(main)
