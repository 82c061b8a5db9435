"""What `make` runs: the pipeline, and then its result in a few lines.

    python -m tools.run [PRESET] [-S train.epochs=2 ...]

A preset is a file in presets/, with values as for `dvc exp run`. It is whole: it starts from the
committed params, whatever was tried before. Only the choice of data stays, the sections `download`
and `preprocess`. What a run changes is kept as an experiment, the same result only once.

If no source of the dataset can be reached, `digits` takes its place, 1,797 scans that scikit-learn
carries, with the preset of that name; the next run tries the dataset again.
"""

import math
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from stages.base import params
from stages.base.files import atomic_output
from stages.base.params import PARAMS
from stages.base.stage import UserError, arguments, run_stage
from stages.dataset.catalogue import UNREACHABLE
from stages.report.scores import percent, wilson_interval
from tools import recover
from tools.compare import Run, conclusion, load_both, load_run
from tools.experiments import git, keep, leaves, load

FALLBACK = Path(".dvc/tmp/before-digits.yaml")  # params.yaml before `digits` took the place
LARGE = 10_000  # test images of a dataset that is large enough for a preset of one epoch


def with_values(text: str, values: list[str]) -> str:
    """The text of params.yaml with values set in it, each like `train.epochs=2`.

    Raises:
        UserError: one of them is not a key of params.yaml and one value.
    """
    if not values:
        return text
    from dvc.utils.hydra import apply_overrides

    with TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            apply_overrides(path, values)
        except Exception as error:  # of DVC, or of one of three libraries under it
            cause = str(error.__cause__ or error).splitlines()[0].rstrip(".")
            raise UserError(
                f"-S {' -S '.join(values)}: {cause}. Expected: keys of params.yaml and one value "
                "each; several values go into DVC's queue: dvc exp run --queue -S ..."
            ) from None
        return path.read_text(encoding="utf-8")


def with_preset(text: str, preset: str) -> str:
    """The committed params.yaml with a preset; the choice of data is that of `text`."""
    path = Path(f"presets/{preset}.txt")
    if not path.is_file():
        presets = ", ".join(sorted(path.stem for path in path.parent.glob("*.txt")))
        raise UserError(f"preset: expected one of {presets}, found {preset!r}")
    data = {key: yaml.safe_load(text).get(key, {}) for key in ("download", "preprocess")}
    chosen = [f"++{key}={value}" for key, value in leaves(data).items()]
    committed = "\n".join(git("show", f"HEAD:{PARAMS}")) + "\n"
    return with_values(committed, chosen + path.read_text(encoding="utf-8").split()[1::2])


def write_params(text: str) -> None:
    """Replace params.yaml, unless a value in `text` is wrong: a UserError names each such value."""
    if text == PARAMS.read_text(encoding="utf-8"):
        params.load()
        return
    recover.refuse_while_dvc_works()
    with atomic_output(PARAMS) as new:
        new.write_text(text, encoding="utf-8", newline="\n")
        params.load(new)


def repro() -> bool:
    """Whether `dvc repro` succeeds; its output goes where ours goes."""
    return subprocess.run([sys.executable, "-m", "dvc", "repro"]).returncode == 0


def run(preset: str | None, values: list[str]) -> None:
    """Run what has changed, on `digits` if the dataset cannot be reached.

    Raises:
        UserError: the run failed; DVC and the stage have said why.
    """
    text = PARAMS.read_text(encoding="utf-8")
    if FALLBACK.is_file() and text == with_preset(saved := FALLBACK.read_text("utf-8"), "digits"):
        text = saved
        print("Trying the dataset again that could not be reached the last time.", flush=True)
    if preset:
        params.load()
        text = with_preset(text, preset)
        if name := keep("before"):
            print(f"What you have is kept: `dvc exp apply {name}` brings it back.", flush=True)
    write_params(with_values(text, values))
    FALLBACK.unlink(missing_ok=True)
    UNREACHABLE.unlink(missing_ok=True)
    if repro():
        return
    if UNREACHABLE.is_file():
        print(
            "\nNo source of the dataset can be reached: running on digits instead, 1,797 small "
            "scans that\nscikit-learn carries (presets/digits.txt). The next `make` tries the "
            "dataset again; `make undo`\ngoes back at once.\n",
            flush=True,
        )
        shutil.copy(PARAMS, FALLBACK)
        write_params(with_preset(PARAMS.read_text(encoding="utf-8"), "digits"))
        if repro():
            return
    raise UserError("the run failed: see above")


def summary(found: Run, compared: str, name: str | None = None) -> str:
    """The result of a run in a few lines.

    Args:
        found: the run.
        compared: a sentence on how it compares with the committed run.
        name: of the experiment as which it was kept, if it was.
    """
    errors = len(found.misclassified)
    low, high = map(percent, wilson_interval(found.images - errors, found.images).values())
    corrupted = load(None, "metrics/robustness.json").get("corrupt", math.nan)
    tried = "make fast, or " if found.images >= LARGE else ""
    tried = f"Kept as {name}, see make experiments. Next: " if name else f"Try next: {tried}"
    return f"""\
{found.dataset}: {percent(found.accuracy)} of {found.images:,} test images correct \
({errors:,} errors; 95 % interval {low} to {high}).
Corrupted images: {percent(corrupted)} misclassified on average.
{compared}
Pictures: plots/evaluate, plots/robustness; all on a page: dvc plots show
{tried}python -m tools.run -S 'seeds=[0,1]'
Go back to the committed run: make undo"""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("preset", nargs="?", help="a file in presets/, as fast")
    setting = {"action": "append", "default": [], "metavar": "KEY=VALUE"}
    parser.add_argument("-S", "--set-param", help="a param and its value", **setting)
    options = parser.parse_args()
    recover.main()
    run(options.preset, options.set_param)
    name = keep(options.preset or "run")
    try:
        compared = conclusion(*load_both("HEAD"), "the committed run")
    except UserError as error:
        compared = f"No comparison: {error}."
    print(f"\n{summary(load_run(), compared, name)}")


if __name__ == "__main__":
    run_stage(main)
