"""Learning curves on disk: DVCLive writes a file per quantity, `dvc plots show` draws them.

They grow after each epoch, so they can be watched while a network trains.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from dvclive import Live

from stages.base.stage import UserError

CURVES = Path("plots/training")  # a folder per seed


@contextmanager
def create(folder: Path) -> Iterator[Live]:
    """New curves in `folder`, in place of an earlier run's; none are left if writing them fails."""
    try:
        # Without these options it rewrites our dvc.yaml.
        with Live(str(folder), dvcyaml=None, save_dvc_exp=False) as live:
            yield live
    except OSError as error:
        if error.errno and not error.filename:  # a write that failed does not say where
            error.filename = str(folder)
        shutil.rmtree(folder, ignore_errors=True)
        raise


def read(folder: Path) -> pd.DataFrame:
    """The curves in `folder`: a row per epoch, columns like train_loss and validation_accuracy.

    Raises:
        UserError: there are none.
    """
    files = sorted((folder / "plots/metrics").glob("*/*.tsv"))
    if not files:
        raise UserError(f"{folder} has no learning curves: run `dvc repro --force train`")
    return pd.DataFrame(
        {
            f"{path.parent.name}_{path.stem}": pd.read_csv(path, sep="\t")[path.stem]
            for path in files
        }
    )
