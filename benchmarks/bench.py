"""Test error against seconds of training: our presets and three well-known networks.

    python -m benchmarks.bench                     everything: some two hours on two cores
    python -m benchmarks.bench --seeds 1 --epochs 1     a look at whether it runs: minutes

Each run is a process of its own (benchmarks/contenders.py). The contenders take turns, the runs of
each spread over all the time, so that a machine which slows down slows them all. After each run the
folder of results has a table of all epochs (runs.csv), one of the contenders (table.csv), a
picture, and a page of both. An interrupted benchmark goes on where it stopped: what its runs found
lies in the folder `unfinished` there, and counts while code, params, data and machine are the same.
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
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from tqdm import tqdm

from stages.base import arrays
from stages import environment
from stages.report import style as figures
from stages.report import pictures
from stages.base.files import replacing
from stages.base.stage import UserError, run_stage

SEEDS = {  # seeds per contender
    "notebook": 3,
    "keras_example": 2,
    "pytorch_example": 1,
    "fast": 10,
    "short": 3,
    "default": 5,
    "best": 5,
}
NAMES = {
    "notebook": "the classic notebook's network",
    "keras_example": "Keras' MNIST example",
    "pytorch_example": "PyTorch's MNIST example",
    "fast": "ours, fast",
    "short": "ours, short",
    "default": "ours, default",
    "best": "ours, best",
}
COLOURS = {
    "notebook": figures.GREY,
    "keras_example": "#e69f00",
    "pytorch_example": "#cc79a7",
    "fast": "#009e73",
    "short": "#56b4e9",
    "default": figures.BLUE,
    "best": figures.ORANGE,
}
MARKERS = dict(zip(NAMES, "os*^Dvp", strict=True))
RESULTS = Path("benchmarks/results")
REFERENCE = "notebook"  # its time of training is the unit


def fingerprint(epochs: int | None) -> str:
    """Of all that a run depends on but contender and seed: code, params, data, machine, epochs."""
    code = Path(__file__).resolve().parent.parent
    training = yaml.safe_load((code / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["train"]
    files = [code / path for path in training["deps"] if path.startswith("stages/")]
    files += [code / "benchmarks/contenders.py", *(code / "presets").glob("*.txt")]
    files += [environment.ENVIRONMENT, Path("params.yaml"), *arrays.PROCESSED.glob("*.npy")]
    digest = hashlib.sha256(f"{machine()}, {epochs} epochs".encode())
    for path in sorted(set(files)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def measure(contender: str, seed: int, epochs: int | None) -> dict:
    """One run in a process of its own.

    Raises:
        UserError: it failed; what it wrote to stderr has been shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run.json"
        command = [sys.executable, "-m", "benchmarks.contenders", contender, f"--seed={seed}"]
        command += [f"--output={output}"] + [f"--epochs={epochs}"] * bool(epochs)
        # oneDNN makes all of them faster; without AVX-512, TensorFlow leaves it off by default.
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
        environment = os.environ | quiet | {"KERAS_BACKEND": "tensorflow"}
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        if run.returncode:
            sys.stderr.write(run.stderr)
            raise UserError(f"the run of {contender}, seed {seed}, failed: see above")
        return json.loads(output.read_text(encoding="utf-8"))


def curves(runs: dict[tuple[str, int], dict]) -> pd.DataFrame:
    """A row per epoch of each run: contender, seed, epoch (from 1), seconds, test_errors."""
    rows = [
        {"contender": contender, "seed": seed, "epoch": epoch} | point
        for (contender, seed), run in runs.items()
        for epoch, point in enumerate(run["curve"], start=1)
    ]
    return pd.DataFrame(rows).round({"seconds": 3})


def table(runs: dict[tuple[str, int], dict], labels: np.ndarray) -> pd.DataFrame:
    """A row per contender: means and sample standard deviations over its seeds.

    Columns: seeds; epochs; images (trained on per epoch); seconds and seconds_std; of_notebook
    (mean seconds over those of the notebook's network); accuracy, accuracy_std, accuracy_min of
    the final networks in %; averaged, the accuracy in % of the mean of their probabilities;
    multiply_adds_per_second, the useful ones, and of_matrix_product, their share of the machine's
    rate in float32 matrix products, measured in the same runs.
    """
    rows = []
    for contender in dict.fromkeys(name for name, _ in runs):
        own = [run for (name, _), run in runs.items() if name == contender]
        seconds = np.array([run["curve"][-1]["seconds"] for run in own])
        errors = np.array([run["curve"][-1]["test_errors"] for run in own])
        accuracy = 100 * (1 - errors / len(labels))
        row = {
            "contender": contender,
            "seeds": len(own),
            "epochs": len(own[0]["curve"]),
            "images": own[0]["images"],
            "seconds": seconds.mean(),
            "seconds_std": seconds.std(ddof=1) if len(own) > 1 else np.nan,
            "accuracy": accuracy.mean(),
            "accuracy_std": accuracy.std(ddof=1) if len(own) > 1 else np.nan,
            "accuracy_min": accuracy.min(),
        }
        if "probabilities" in own[0]:
            mean = np.mean([run["probabilities"] for run in own], axis=0, dtype=np.float64)
            row["averaged"] = 100 * np.mean(mean.argmax(axis=1) == labels)
        if "multiply_adds" in own[0]:
            images = own[0]["images"] * len(own[0]["curve"])
            rate = own[0]["multiply_adds"] * images / seconds
            row["multiply_adds_per_second"] = rate.mean()
            if "matrix_product_rate" in own[0]:
                machine = np.array([run["matrix_product_rate"] for run in own])
                row["of_matrix_product"] = (rate / machine).mean()
        rows.append(row)
    frame = pd.DataFrame(rows)
    unit = frame.loc[frame["contender"] == REFERENCE, "seconds"]
    frame.insert(6, "of_notebook", frame["seconds"] / unit.iloc[0] if len(unit) else np.nan)
    return frame


def draw(frame: pd.DataFrame, images: int) -> Figure:
    """Test error against seconds of training: a thin line per run, points for their ends.

    Args:
        frame: as `curves` makes it.
        images: how many test images there are.
    """
    contenders = list(dict.fromkeys(frame["contender"]))
    figure = figures.chart(
        9,
        5,
        "Test error against seconds of training",
        "A thin line per run and epoch by epoch; large points: means at the end, with the range "
        "from the best to the worst seed. Nothing was chosen by this error. Both axes are "
        "logarithmic: left is faster, below is better.",
    )
    axes = figure.subplots()
    keys = []
    for contender in contenders:
        colour, marker = COLOURS[contender], MARKERS[contender]
        own = frame[frame["contender"] == contender]
        ends = []
        for _, run in own.groupby("seed"):
            error = 100 * run["test_errors"] / images
            axes.plot(run["seconds"], error, color=colour, linewidth=0.7, alpha=0.5)
            ends.append((run["seconds"].iloc[-1], error.iloc[-1]))
        seconds, errors = np.array(ends).T
        axes.plot([seconds.mean()] * 2, [errors.min(), errors.max()], color=colour, linewidth=2)
        axes.plot(
            seconds.mean(), errors.mean(), marker, color=colour, markersize=9, markeredgecolor="w"
        )
        text = f"{NAMES[contender]}: {errors.mean():.2f} % in {seconds.mean():,.0f} s"
        text += f" ({len(ends)} seed{'s' * (len(ends) > 1)})"
        keys.append(Line2D([], [], color=colour, marker=marker, label=text))
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="seconds of training on this machine",
        ylabel=f"test error, % of {images:,} images",
    )
    for axis, ticks in ((axes.xaxis, (1, 2, 5)), (axes.yaxis, (1, 2, 3, 5, 7))):
        axis.set_major_locator(LogLocator(subs=ticks))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid()
    axes.legend(handles=keys, loc="upper right", fontsize=9)
    return figure


def write(runs: dict[tuple[str, int], dict], labels: np.ndarray, folder: Path) -> pd.DataFrame:
    """Tables and picture of the runs so far into `folder`; returns the table."""
    listed = {name: number for number, name in enumerate(NAMES)}
    runs = dict(sorted(runs.items(), key=lambda run: (listed[run[0][0]], run[0][1])))
    frame, summary = curves(runs), table(runs, labels)
    for name, content in (("runs", frame), ("table", summary)):
        with replacing(folder / f"{name}.csv") as temporary:
            content.to_csv(temporary, index=False, lineterminator="\n", float_format="%.6g")
    pictures.save(draw(frame, len(labels)), folder / "error_against_seconds.png")
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(page(summary), encoding="utf-8", newline="\n")
    return summary


def page(summary: pd.DataFrame) -> str:
    """The table as a page to read, with the machine in words."""
    lines = [
        "# Test error against seconds of training",
        "",
        "Written by `python -m benchmarks.bench`; [its documentation](../README.md) says what is",
        f"measured. {machine()}.",
        "",
        "![A line per run, test error against seconds](error_against_seconds.png)",
        "",
        "| network | seeds | epochs | seconds | of the notebook's | test accuracy, % | averaged, %"
        " | of the matrix rate |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in summary.to_dict("records"):
        cells = [
            NAMES[row["contender"]],
            row["seeds"],
            row["epochs"],
            with_spread(row["seconds"], row["seconds_std"], 1),
            number(row["of_notebook"], 3),
            with_spread(row["accuracy"], row["accuracy_std"], 3),
            number(row.get("averaged"), 2),
            number(row.get("of_matrix_product"), 2),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "After ±: standard deviation over the seeds.", ""]
    return "\n".join(lines)


def number(value: float | None, digits: int) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def with_spread(mean: float, spread: float, digits: int) -> str:
    return f"{mean:.{digits}f}" + f" ± {spread:.{digits}f}" * (not np.isnan(spread))


def machine() -> str:
    """Processor, cores and versions, as a sentence without its stop."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0]
    except (OSError, IndexError):  # no Linux, or a processor without a name
        processor = platform.processor() or platform.machine()
    versions = f"Python {platform.python_version()}, TensorFlow {version('tensorflow')}"
    return f"Machine: {os.cpu_count()} cores of {processor}, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--contenders", nargs="+", choices=SEEDS, default=list(SEEDS), help="some of all"
    )
    parser.add_argument("--seeds", type=int, help="seeds per contender, at most")
    parser.add_argument("--epochs", type=int, help="epochs of each contender, in place of its own")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args()
    contenders = options.contenders
    if "pytorch_example" in contenders and not find_spec("torch"):
        print("PyTorch is not installed: its example is left out")
        contenders = [name for name in contenders if name != "pytorch_example"]
    _, labels = arrays.load_split(arrays.PROCESSED, "test")
    counts = {name: min(SEEDS[name], options.seeds or SEEDS[name]) for name in contenders}
    turns = [(name, seed) for name, count in counts.items() for seed in range(count)]
    turns.sort(key=lambda turn: (turn[1] + 0.5) / counts[turn[0]])  # each spread over all the time
    key = fingerprint(options.epochs)
    kept = options.output / "unfinished"
    kept.mkdir(parents=True, exist_ok=True)
    paths = {(name, seed): kept / f"{name}-{seed}.json" for name, seed in turns}
    found = {
        turn: json.loads(path.read_text(encoding="utf-8"))
        for turn, path in paths.items()
        if path.exists()
    }
    runs = {turn: run for turn, run in found.items() if run["key"] == key}
    if runs:
        print(f"{len(runs)} of {len(turns)} runs are taken from an interrupted benchmark: {kept}")
    turns = [turn for turn in turns if turn not in runs]
    with tqdm(turns, unit=" runs", disable=None, leave=False) as progress:
        for name, seed in progress:
            progress.set_postfix_str(f"{name}, seed {seed}")
            runs[name, seed] = run = measure(name, seed, options.epochs) | {"key": key}
            with replacing(paths[name, seed]) as temporary:
                temporary.write_text(json.dumps(run), encoding="utf-8")
            end = run["curve"][-1]
            progress.write(
                f"{name}, seed {seed}: {end['test_errors']} errors, {end['seconds']:.1f} s"
            )
            write(runs, labels, options.output)
    summary = write(runs, labels, options.output)
    for path in paths.values():
        path.unlink()
    with suppress(OSError):  # of other contenders there may be more
        kept.rmdir()
    with pd.option_context("display.max_columns", None, "display.width", 200):
        print(summary.round(3).to_string(index=False))


if __name__ == "__main__":
    run_stage(main)
