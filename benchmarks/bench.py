"""Test error against seconds of training: our presets and well-known models.

    python -m benchmarks.bench                     everything: an hour on two cores
    python -m benchmarks.bench --seeds 1 --epochs 1     a look at whether it runs: minutes

Each run is a process of its own (benchmarks/contenders.py). The contenders take turns, the runs of
each spread over all the time, so that a machine which slows down slows them all. After each run the
folder of results has a table of all epochs (runs.csv), one of the contenders (table.csv), two
pictures, and a page of all. An interrupted benchmark goes on where it stopped: the results of its
runs lie in the folder `unfinished`, and count while code, params, data and machine are the same.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image
from tqdm import tqdm

from stages.base import data, params, versions
from stages.base.files import atomic_output, write_csv
from stages.base.stage import UserError, run_stage
from stages.report import drawing, style

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path("benchmarks/results")
REFERENCE = "notebook"  # its time of training is the unit


class Contender(NamedTuple):
    """A contender's name on the page, how many seeds it gets, and its look in the picture."""

    name: str
    seeds: int
    colour: str
    marker: str


CONTENDERS = {
    "notebook": Contender("the classic notebook's model", 2, style.GREY, "o"),
    "keras_example": Contender("Keras' MNIST example", 1, "#e69f00", "s"),
    "pytorch_example": Contender("PyTorch's MNIST example", 1, "#cc79a7", "P"),
    "fast": Contender("ours, fast", 5, "#009e73", "^"),
    "short": Contender("ours, short", 2, "#56b4e9", "D"),
    "default": Contender("ours, default", 3, style.BLUE, "v"),
    "best": Contender("ours, best", 5, style.ORANGE, "p"),
    "linear": Contender("linear classifier of pixels", 1, style.GREY, "o"),
    "planets_guide": Contender("A guide to MLOps' model", 1, "#e69f00", "s"),
    "keras_scratch": Contender("Keras' example from scratch", 1, "#cc79a7", "P"),
    "photos": Contender("ours, photos", 3, style.BLUE, "v"),
}
OF_PICTURES = ("linear", "planets_guide", "keras_scratch", "photos")  # for a folder of pictures

Runs = dict[tuple[str, int], dict]  # by contender and seed, what benchmarks/contenders.py wrote


def fingerprint(epochs: int | None) -> str:
    """Of all that a run depends on but contender and seed: code, params, data, machine, epochs."""
    files = [*(ROOT / "stages").rglob("*.py"), *(ROOT / "presets").glob("*.txt")]
    files += [ROOT / "benchmarks/contenders.py", versions.PINS, params.PARAMS]
    files += data.PROCESSED.glob("*/*.npy")
    digest = hashlib.sha256(f"{machine()}, {epochs} epochs".encode())
    for path in sorted(files):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def measure(contender: str, seed: int, epochs: int | None) -> dict:
    """One run in a process of its own.

    Raises:
        UserError: it failed; what it wrote to stderr has been shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run.json"
        command = [sys.executable, "-m", "benchmarks.contenders", contender]
        command += [f"--seed={seed}", f"--output={output}"]
        if epochs:
            command.append(f"--epochs={epochs}")
        # oneDNN makes all of them faster; without AVX-512, TensorFlow leaves it off by default.
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
        environment = os.environ | quiet | {"KERAS_BACKEND": "tensorflow"}
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        if run.returncode:
            sys.stderr.write(run.stderr)
            raise UserError(f"the run of {contender}, seed {seed}, failed: see above")
        return json.loads(output.read_text(encoding="utf-8"))


def curves(runs: Runs) -> pd.DataFrame:
    """A row per epoch of each run: contender, seed, epoch (from 1), seconds, test_errors."""
    rows = [
        {"contender": contender, "seed": seed, "epoch": epoch} | point
        for (contender, seed), run in runs.items()
        for epoch, point in enumerate(run["curve"], start=1)
    ]
    return pd.DataFrame(rows)


def table(runs: Runs, labels: np.ndarray) -> pd.DataFrame:
    """A row per contender: means and sample standard deviations over its seeds.

    Columns: seeds; epochs; images (trained on per epoch); seconds and seconds_std; of_notebook
    (mean seconds over those of the notebook's model); accuracy, accuracy_std, accuracy_min of
    the final models in %; corrupted and corrupted_std, their mean error under the 16 corruptions
    after MNIST-C in %, worst, that under the worst of these; averaged, the accuracy in % of the
    mean of their probabilities;
    multiply_adds_per_second, the useful ones, and of_matrix_product, their share of the machine's
    rate in float32 matrix products, measured in the same runs. Empty: not measured.
    """
    rows = []
    for contender in dict.fromkeys(name for name, _ in runs):
        own = pd.DataFrame([run for (name, _), run in runs.items() if name == contender])
        epochs, images = len(own["curve"][0]), own["images"][0]
        seconds = own["curve"].map(lambda curve: curve[-1]["seconds"])
        errors = own["curve"].map(lambda curve: curve[-1]["test_errors"])
        accuracy = 100 * (1 - errors / len(labels))
        row = {
            "contender": contender,
            "seeds": len(own),
            "epochs": epochs,
            "images": images,
            "seconds": seconds.mean(),
            "seconds_std": seconds.std(),
            "of_notebook": np.nan,
            "accuracy": accuracy.mean(),
            "accuracy_std": accuracy.std(),
            "accuracy_min": accuracy.min(),
        }
        if "corruptions" in own:
            corrupted = 100 * pd.DataFrame(own["corruptions"].tolist())  # (seeds, corruptions)
            row["corrupted"] = corrupted.mean(axis=1).mean()
            row["corrupted_std"] = corrupted.mean(axis=1).std()
            row["worst"] = corrupted.mean().max()
        if "multiply_adds" in own:
            rate = own["multiply_adds"] * images * epochs / seconds
            row["multiply_adds_per_second"] = rate.mean()
        if "probabilities" in own:
            mean = np.mean(own["probabilities"].tolist(), axis=0)
            row["averaged"] = 100 * np.mean(mean.argmax(axis=1) == labels)
            row["of_matrix_product"] = (rate / own["matrix_product_rate"]).mean()
        rows.append(row)
    frame = pd.DataFrame(rows)
    unit = frame["seconds"][frame["contender"] == REFERENCE]
    if len(unit):
        frame["of_notebook"] = frame["seconds"] / unit.iloc[0]
    return frame


def draw(frame: pd.DataFrame, images: int) -> Image.Image:
    """Test error against seconds of training: a thin line per run, points for their ends.

    Args:
        frame: as `curves` makes it.
        images: how many test images there are.
    """
    title = "Test error against seconds of training"
    note = (
        "A thin line per run and epoch by epoch; large points: means at the end, with the range "
        "from the best to the worst seed. Nothing was chosen by this error. Both axes are "
        "logarithmic: left is faster, below is better."
    )
    figure = style.figure(1300, 720)
    axes = figure.subplots()
    keys = []
    for contender in frame["contender"].unique():
        look = CONTENDERS[contender]
        own = frame[frame["contender"] == contender].assign(
            error=lambda run: 100 * run["test_errors"] / images
        )
        for _, run in own.groupby("seed"):
            axes.plot(run["seconds"], run["error"], color=look.colour, linewidth=0.7, alpha=0.5)
        ends = own.groupby("seed").last()
        seconds, errors = ends["seconds"].mean(), ends["error"]
        axes.plot([seconds] * 2, [errors.min(), errors.max()], color=look.colour, linewidth=2)
        point = {"color": look.colour, "marker": look.marker, "markeredgecolor": "white"}
        axes.plot(seconds, errors.mean(), markersize=9, **point)
        text = f"{look.name}: {errors.mean():.2f} % in {seconds:,.0f} s (seeds: {len(ends)})"
        keys.append(Line2D([], [], label=text, **point))
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="seconds of training on this machine",
        ylabel=f"test error, % of {images:,} images",
    )
    plain_log_axes(axes)
    axes.legend(handles=keys, loc="upper right", fontsize=9)
    return style.chart(title, figure, note)


def draw_corrupted(runs: Runs, images: int) -> Image.Image:
    """Mean error under corruption against error on clean test images, a point per run."""
    title = "Corrupted images against clean ones"
    note = (
        "A point per seed. Below: fewer errors under the corruptions after MNIST-C, on average; "
        "left: fewer on the test images as they are. Both axes are logarithmic."
    )
    figure = style.figure(1300, 720)
    axes = figure.subplots()
    for contender in dict.fromkeys(name for name, _ in runs):
        look = CONTENDERS[contender]
        own = [run for (name, _), run in runs.items() if name == contender]
        clean = [100 * run["curve"][-1]["test_errors"] / images for run in own]
        corrupted = [100 * np.mean(list(run["corruptions"].values())) for run in own]
        text = f"{look.name}: {np.mean(clean):.2f} % and {np.mean(corrupted):.1f} %"
        point = {"color": look.colour, "marker": look.marker, "markeredgecolor": "white"}
        axes.plot(clean, corrupted, linestyle="", markersize=9, label=text, **point)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"test error, % of {images:,} images",
        ylabel="mean error under corruption, %",
    )
    plain_log_axes(axes)
    axes.legend(fontsize=9)
    return style.chart(title, figure, note)


def plain_log_axes(axes: Axes) -> None:
    """Ticks at 1, 2, 3, 5, 7 times the powers of ten, in plain numbers, and a grid."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid()


def page(summary: pd.DataFrame, dataset: str) -> str:
    """The table as a page to read, with the machine in words."""

    def cell(value: float, digits: int, spread: float = np.nan) -> str:
        text = "" if np.isnan(value) else f"{value:.{digits}f}"
        return text if np.isnan(spread) else f"{text} ± {spread:.{digits}f}"

    lines = [
        "# Test error against seconds of training",
        "",
        f"Dataset: {dataset}. Written by `python -m benchmarks.bench`; docs/benchmarks.md says",
        f"what is measured. {machine()}.",
        "",
        "![A line per run, test error against seconds](error_against_seconds.png)",
        "",
        "![A point per run, error on corrupted against error on clean images](corrupted.png)",
        "",
        "| model | seeds | epochs | seconds | of the notebook's | test accuracy, % | averaged, %"
        " | error under corruption, % | worst, % | of the matrix rate |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in summary.to_dict("records"):
        cells = [
            CONTENDERS[row["contender"]].name,
            str(row["seeds"]),
            str(row["epochs"]),
            cell(row["seconds"], 1, row["seconds_std"]),
            cell(row["of_notebook"], 3),
            cell(row["accuracy"], 3, row["accuracy_std"]),
            cell(row.get("averaged", np.nan), 2),
            cell(row.get("corrupted", np.nan), 2, row.get("corrupted_std", np.nan)),
            cell(row.get("worst", np.nan), 1),
            cell(row.get("of_matrix_product", np.nan), 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "After ±: standard deviation over the seeds.", ""]
    return "\n".join(lines)


def write(runs: Runs, test: data.Split, folder: Path) -> pd.DataFrame:
    """Tables, picture and page of the runs so far into `folder`; returns the table."""
    listed = list(CONTENDERS)
    runs = dict(sorted(runs.items(), key=lambda run: (listed.index(run[0][0]), run[0][1])))
    labels = test.labels
    frame, summary = curves(runs), table(runs, labels)
    write_csv(folder / "runs.csv", frame, index=False, float_format="%.6g")
    write_csv(folder / "table.csv", summary, index=False, float_format="%.6g")
    drawing.save(draw(frame, len(labels)), folder / "error_against_seconds.png")
    drawing.save(draw_corrupted(runs, len(labels)), folder / "corrupted.png")
    with atomic_output(folder / "README.md") as temporary:
        temporary.write_text(page(summary, test.info.name), encoding="utf-8", newline="\n")
    return summary


def machine() -> str:
    """Processor, cores and versions, as a sentence without its full stop."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0]
    except (OSError, IndexError):  # no Linux, or a processor without a name
        processor = platform.processor() or platform.machine()
    software = f"Python {platform.python_version()}, TensorFlow"
    found = " and ".join(versions.installed("tensorflow"))
    return f"Machine: {os.cpu_count()} cores of {processor}, {software} {found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--contenders", nargs="+", choices=CONTENDERS, help="in place of those for this dataset"
    )
    parser.add_argument("--seeds", type=int, help="seeds per contender, at most")
    parser.add_argument("--epochs", type=int, help="epochs of each contender, in place of its own")
    parser.add_argument("--output", type=Path, help="folder for the results")
    options = parser.parse_args()
    test = data.load_split("test")
    of_pictures = test.info.fit is not None
    fit_for = [name for name in CONTENDERS if (name in OF_PICTURES) == of_pictures]
    contenders = options.contenders or fit_for
    output = options.output or (RESULTS / test.info.name if of_pictures else RESULTS)
    if "pytorch_example" in contenders and not find_spec("torch"):
        print("PyTorch is not installed: its example is left out")
        contenders = [name for name in contenders if name != "pytorch_example"]
    counts = {name: min(CONTENDERS[name].seeds, options.seeds or 100) for name in contenders}
    turns = [(name, seed) for name, count in counts.items() for seed in range(count)]
    turns.sort(key=lambda turn: (turn[1] + 0.5) / counts[turn[0]])  # each spread over all the time
    key = fingerprint(options.epochs)
    kept = output / "unfinished"
    kept.mkdir(parents=True, exist_ok=True)
    paths = {(name, seed): kept / f"{name}-{seed}.json" for name, seed in turns}
    runs = {}
    for turn, path in paths.items():
        run = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"key": None}
        if run["key"] == key:
            runs[turn] = run
    if runs:
        print(f"{len(runs)} of {len(turns)} runs are taken from an interrupted benchmark: {kept}")
    turns = [turn for turn in turns if turn not in runs]
    with tqdm(turns, unit=" runs", disable=None, leave=False) as progress:
        for name, seed in progress:
            progress.set_postfix_str(f"{name}, seed {seed}")
            runs[name, seed] = run = measure(name, seed, options.epochs) | {"key": key}
            with atomic_output(paths[name, seed]) as temporary:
                temporary.write_text(json.dumps(run), encoding="utf-8")
            end = run["curve"][-1]
            progress.write(
                f"{name}, seed {seed}: {end['test_errors']} errors, {end['seconds']:.1f} s"
            )
            write(runs, test, output)
    summary = write(runs, test, output)
    for path in paths.values():
        path.unlink()
    with suppress(OSError):  # of other contenders there may be more
        kept.rmdir()
    with pd.option_context("display.max_columns", None, "display.width", 200):
        print(summary.round(3).to_string(index=False))


if __name__ == "__main__":
    run_stage(main)
