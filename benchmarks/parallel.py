"""Images per second of training: threads in a process, processes side by side, and a cluster.

    python -m benchmarks.parallel [--repeats 5] [--combinations 1x2 2x1 2w1] [--folder DIR]

A combination PxT is P processes at once, each the stage `train` with `train.threads` T: one epoch
of the network in params.yaml, on the data of `dvc repro preprocess`. PwT are P workers that train
one network together (TF_CONFIG), over the loopback device: against Px1 it shows what working
together costs. Each process runs in a temporary folder of its own in DIR. Without --combinations
these are all powers of two up to the number of cores, but no more than two threads a core in all.
They take turns, and each repeat runs all of them, since a machine's speed drifts. The table is
printed and written to benchmarks/results/threads.csv, medians over the repeats:

    networks            that are trained: as many as processes, or one
    processes, threads  at once, and of each
    images_per_second   of all networks: the sum of what the stages print of their epoch, start
                        and validation left out
    lowest, highest     of the repeats
    relative            to the first combination in the same repeat
    seconds             from the start of the processes to the end of the last, start-up included
"""

import argparse
import os
import re
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml
from tqdm import tqdm

from stages.base.files import write_csv
from stages.base.params import PARAMS
from stages.base.stage import UserError, run_stage
from tools.cluster import configurations, prepare, start

RESULTS = Path("benchmarks/results/threads.csv")
KEYS = ["networks", "processes", "threads"]
COLUMNS = (*KEYS, "images_per_second", "seconds")


def combinations(cores: int) -> list[tuple[int, int, int]]:
    """KEYS: powers of two up to `cores`, with a product of at most twice that."""
    powers = [2**power for power in range(cores.bit_length())]
    pairs = [(p, t) for p in powers for t in powers if p * t <= 2 * cores]
    together = [(1, p, t) for p, t in pairs if p > 1 and p * t <= cores]
    return [(p, p, t) for p, t in pairs] + together


def combination(text: str) -> tuple[int, int, int]:
    """`2x1` as (2, 2, 1), two networks, and `2w1` as (1, 2, 1), one."""
    if not (match := re.fullmatch(r"([1-9]\d*)([xw])([1-9]\d*)", text)):
        raise argparse.ArgumentTypeError(
            f"expected PROCESSESxTHREADS or WORKERSwTHREADS like 2x1, found {text!r}"
        )
    return int(match[1]) if match[2] == "x" else 1, int(match[1]), int(match[3])


def set_params(folder: Path, threads: int) -> None:
    """Make the training in `folder` one epoch, with so many threads."""
    params = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    params["train"] |= {"epochs": 1, "threads": threads}
    (folder / PARAMS).write_text(yaml.safe_dump(params), encoding="utf-8")


def train(folders: list[Path], networks: int) -> tuple[float, float]:
    """Train in all folders at once: a network in each, or one together.

    Returns:
        The sum of their images per second, and the seconds until the last has ended.

    Raises:
        UserError: one failed; the message has its last line.
    """
    together = len(folders) > networks
    configs = configurations(len(folders)) if together else [""] * len(folders)
    processes = []
    started = time.perf_counter()
    try:
        for folder, config in zip(folders, configs, strict=True):
            processes.append(start(folder, config))
        outputs = [process.communicate()[0] for process in processes]
    finally:  # interrupted: no stage may go on in a folder that is about to go
        for process in processes:
            process.kill()
            process.wait()
    seconds = time.perf_counter() - started
    total = 0.0
    for process, printed in zip(processes, outputs, strict=True):
        if process.returncode:
            last = printed.strip().splitlines()[-1:] or ["it printed nothing"]
            raise UserError(f"python -m stages.train ended with {process.returncode}: {last[0]}")
        total += float(re.search(r"([\d,]+) images/s", printed)[1].replace(",", ""))
    return total / len(folders) * networks, seconds  # each worker prints the rate of all


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per combination, of the runs of all repeats: COLUMNS, in the same order each time."""
    repeat = runs.groupby(KEYS, sort=False).cumcount()
    first = runs["images_per_second"].groupby(repeat).transform("first")
    runs = runs.assign(relative=runs["images_per_second"] / first)
    groups = runs.groupby(KEYS, sort=False)
    rates = groups["images_per_second"].agg(["median", "min", "max"]).round(0).astype(int)
    rates.columns = ["images_per_second", "lowest", "highest"]
    rates["relative"] = groups["relative"].median().round(2)
    rates["seconds"] = groups["seconds"].median().round(1)
    return rates.reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--combinations", type=combination, nargs="+", default=combinations(os.cpu_count())
    )
    parser.add_argument("--folder", type=Path, default=tempfile.gettempdir())
    options = parser.parse_args()
    if options.repeats < 1:
        raise UserError(f"--repeats: expected 1 or more, found {options.repeats}")
    rows = []
    bar = tqdm(total=options.repeats * len(options.combinations), disable=None, leave=False)
    with bar:
        for _ in range(options.repeats):
            for networks, processes, threads in options.combinations:
                bar.set_description(f"{networks} of {processes} × {threads}")
                with tempfile.TemporaryDirectory(prefix="parallel-", dir=options.folder) as place:
                    folders = [Path(place, str(number)) for number in range(processes)]
                    for folder in folders:
                        prepare(folder)
                        set_params(folder, threads)
                    rows.append((networks, processes, threads, *train(folders, networks)))
                bar.update()
    found = table(pd.DataFrame(rows, columns=COLUMNS))
    print(found.to_string(index=False))
    write_csv(RESULTS, found, index=False)
    print(f"medians of {options.repeats}; written to {RESULTS}")


if __name__ == "__main__":
    run_stage(main)
