"""Do memory and throughput stay flat as the data grows? preprocess and train on 10 to 100 × MNIST.

    python -m benchmarks.scale [--sizes 10 30 100] [--folder DIR]

Run from the project's folder, after `dvc repro download`, on Linux: memory is read from /proc.
Each size repeats the files of data/raw, every image moved by up to two pixels either way, and runs
the real stages on that in a temporary folder of DIR; size 1 comes first, to compare with. 100 ×
MNIST is 7,000,000 images and takes 7 GB of disk. The model is a small one (8, 16 and 32 filters)
and trains for one epoch: reading and augmenting images is what may depend on their number, and a
large model would hide it. Nothing is validated. The table is printed and
written to benchmarks/results/scale.csv:

    size                times the files of data/raw
    images              that the stage went through: preprocess all, train one epoch's
    seconds             of the whole stage, from start to exit
    images_per_second   preprocess: images / seconds, so start-up weighs on the smallest size;
                        train: what the stage prints of its epoch, start and validation left out;
                        the first step's compilation, some seconds, weighs on the smallest size
    peak_anonymous_mb   what the process itself owns (RssAnon), 10⁶ bytes, read every 10 ms
    peak_resident_mb    that and what is in memory of the files it maps (VmHWM): train maps its
                        arrays, so this grows with the data until memory is short, when the kernel
                        drops such pages and reads them again

Where the arrays are larger than the machine's memory, training waits for random reads of the disk.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from stages.base import data
from stages.base.data import RAW
from stages.base.files import write_csv
from stages.base.stage import UserError, run_stage
from stages.dataset import idx

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path("benchmarks/results/scale.csv")
MEMORY = ("peak_anonymous_mb", "peak_resident_mb")
COLUMNS = ("size", "images", "stage", "seconds", "images_per_second", *MEMORY)
SHIFT = 2  # pixels
INTERVAL = 0.01  # seconds between two looks at a stage's memory
DISK = 28 * 28 + 220  # bytes per image: its pixels, and what gzip leaves of them


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move each of the images, (N, height, width), by -SHIFT to SHIFT pixels; zeros move in."""
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:], axis=(1, 2))
    y, x = rng.integers(0, 2 * SHIFT + 1, (2, len(images)))
    return windows[np.arange(len(images)), y, x]


def write_repeated(source: Path, target: Path, size: int) -> None:
    """Write the gzipped IDX file `source` `size` times over as one; needs one block's memory."""
    count, *item = idx.read_shape(source)
    rng = np.random.default_rng(0)
    desc = f"{size} × {source.name}"
    bar = tqdm(desc=desc, total=size * count, unit=" items", disable=None, leave=False)
    with bar, idx.writing(target, (size * count, *item)) as append:
        for _ in range(size):
            for block in idx.read_blocks(source):
                append(shifted(block, rng) if item else block)
                bar.update(len(block))


def prepare(folder: Path, size: int) -> int:
    """Give `folder` all that the stages need, and return how many images an epoch trains on."""
    (folder / RAW).mkdir(parents=True)
    for path in RAW.glob("*.gz"):
        write_repeated(path, folder / RAW / path.name, size)
    info = data.load_info(RAW)
    images = {split: size * count for split, count in info.images.items()}
    data.write_info(info.model_copy(update={"images": images, "disputed": ()}), folder / RAW)
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["preprocess"]["validation_size"] = 0
    params["seeds"] = [0]
    params["train"]["epochs"] = 1
    params["train"]["network"]["filters"] = [8, 16, 32]
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    batch_size = params["train"]["batch_size"]
    return images["train"] // batch_size * batch_size


def run(command: str, folder: Path) -> tuple[str, float, float, float]:
    """Run a stage in `folder`.

    Returns:
        What it printed, seconds, peak of anonymous and of resident memory in 10⁶ bytes.

    Raises:
        UserError: it failed; the message has its last line.
    """
    peak = {"RssAnon": 0.0, "VmHWM": 0.0}
    arguments = [sys.executable, "-m", *f"stages.{command}".split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    bar = tqdm(desc=command, bar_format="{desc}: {elapsed} {postfix}", disable=None, leave=False)
    started = time.perf_counter()
    with bar, open(folder / "printed.txt", "w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            arguments, cwd=folder, env=environment, stdout=output, stderr=output
        )
        try:
            while process.poll() is None:
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
                for name, kilobytes in re.findall(r"(RssAnon|VmHWM):\s*(\d+) kB", status):
                    peak[name] = max(peak[name], int(kilobytes) * 1024 / 1e6)
                bar.set_postfix_str(f"{peak['RssAnon']:,.0f} MB", refresh=False)
                bar.update()
                time.sleep(INTERVAL)
        finally:  # interrupted: no stage may go on in a folder that is about to go
            process.kill()
            process.wait()
        seconds = time.perf_counter() - started
        output.seek(0)
        printed = output.read()
    if process.returncode:
        last = printed.strip().splitlines()[-1:] or ["it printed nothing"]
        raise UserError(f"python -m stages.{command} ended with {process.returncode}: {last[0]}")
    return printed, seconds, peak["RssAnon"], peak["VmHWM"]


def measure(folder: Path, size: int, images: int) -> list[tuple]:
    """A row of COLUMNS for preprocess, of `images`, and one for train, in the empty `folder`."""
    epoch = prepare(folder, size)
    _, seconds, *memory = run("preprocess", folder)
    rows = [(size, images, "preprocess", seconds, images / seconds, *memory)]
    printed, seconds, *memory = run("train --seed 0", folder)
    rate = re.search(r"([\d,]+) images/s", printed)[1].replace(",", "")
    return [*rows, (size, epoch, "train", seconds, float(rate), *memory)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 30, 100], help="times MNIST")
    parser.add_argument("--folder", type=Path, default=tempfile.gettempdir(), help="for the data")
    arguments = parser.parse_args()
    if not Path("/proc/self/status").is_file():
        raise UserError("/proc not found: this benchmark reads the stages' memory there, on Linux")
    if min(arguments.sizes) < 1:
        raise UserError(f"--sizes: expected 1 or more, found {min(arguments.sizes)}")
    count = sum(data.load_info(RAW).images.values())
    sizes = sorted({1, *arguments.sizes})
    needed, free = sizes[-1] * count * DISK / 1e9, shutil.disk_usage(arguments.folder).free / 1e9
    space = f"{arguments.folder}: {sizes[-1]} × {count:,} images take {needed:.1f} GB of disk"
    if needed > free:
        raise UserError(f"{space}, {free:.1f} GB are free: choose a --folder or smaller --sizes")
    print(f"{space}, {free:.1f} GB are free", flush=True)
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="scale-", dir=arguments.folder) as folder:
            rows += measure(Path(folder), size, size * count)
        table = pd.DataFrame(rows, columns=COLUMNS).round(1)
        print(table.tail(2).to_string(index=False, header=size == 1, col_space=17), flush=True)
    write_csv(RESULTS, table, index=False)
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    run_stage(main)
