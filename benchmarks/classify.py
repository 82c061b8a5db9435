"""What `python -m apps.classify` costs: to start, for a page, for a large photo, for a folder.

    python -m benchmarks.classify [--repeats 5] [--photos 100]

Run from the project's folder, on Linux, after `dvc repro`. The pictures are docs/photo.jpg, and
pages of test digits. Times are medians of whole processes, memory their largest resident size in
10⁶ bytes. Then, in this process, a folder's photos are decoded, searched for digits, and predicted,
each for all of them before the next: what bounds the throughput. The table is printed and written
to benchmarks/results/classify.csv.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageChops

from apps.classify import predict
from apps.classify.find import find_digits
from apps.classify.pictures import load
from apps.classify.preparation import prepare
from stages.base import data
from stages.base.files import write_csv
from stages.base.stage import UserError, run_stage

RESULTS = Path("benchmarks/results/classify.csv")
PHOTO = Path("docs/photo.jpg")
GRID = 8, 4  # digits on the page
LARGE = 4000, 3000  # pixels: 12 megapixels
WARM = 1, 0.98, 0.92  # light: its red, green and blue
GRAIN = 4  # standard deviation, of 255: in colour, such a file has 3 MB, as those of phones do


def page(path: Path, size: tuple[int, int], grain: float = 0) -> None:
    """Write a page of GRID test digits on slightly uneven paper; with grain as a camera sees it."""
    images = data.scaled(data.load_split("test").images[: GRID[0] * GRID[1], :, :, 0])
    rows = images.reshape(GRID[1], GRID[0], 28, 28).transpose(0, 2, 1, 3)
    ink = rows.reshape(GRID[1] * 28, GRID[0] * 28)
    paper = 230 - 30 * np.linspace(0, 1, ink.shape[1])
    image = Image.fromarray(np.uint8(paper * (1 - 0.85 * ink)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    if grain:
        image = ImageChops.add(image, Image.effect_noise(size, grain), offset=-128)
        warm = [image.point([round(share * value) for value in range(256)]) for share in WARM]
        image = Image.merge("RGB", warm)
    image.save(path, quality=92)


def process(*files: Path) -> tuple[float, float]:
    """Seconds and memory of a whole process."""
    code = "import runpy, sys; sys.argv = ['classify', *sys.argv[1:]]\n"
    code += "runpy.run_module('apps.classify', run_name='__main__', alter_sys=True)\n"
    code += "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise UserError(f"apps.classify ended with {done.returncode}: {done.stderr.strip()}")
    return seconds, int(done.stderr.split()[-1]) * 1024 / 1e6


def timed(work: Callable, things: list) -> tuple[list, float]:
    started = time.perf_counter()
    return [work(thing) for thing in things], time.perf_counter() - started


def steps(photos: list[Path]) -> dict[str, float]:
    """Seconds per photo of each step, done for all photos before the next."""
    values, decoding = timed(lambda path: load(path)[0][0], photos)
    found, finding = timed(find_digits, values)
    inks, preparing = timed(lambda each: prepare(each.inks), found)
    predict(inks[0])  # loads the model
    _, predicting = timed(predict, inks)
    seconds = {"decode": decoding, "find": finding, "prepare": preparing, "predict": predicting}
    return {step: of_all / len(photos) for step, of_all in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--photos", type=int, default=100, help="in the folder")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        one, sheet, large = (Path(place, f"{name}.jpg") for name in ("one", "sheet", "large"))
        digit = data.load_split("test").images[0, :, :, 0]
        Image.fromarray(np.uint8(255 - digit)).save(one, quality=95)
        page(sheet, (1600, 800))
        page(large, LARGE, GRAIN)
        cases = {"one digit, 28×28": one, "32 digits, 1600×800": sheet, "12 megapixels": large}
        runs = {name: [] for name in cases}
        for _ in range(options.repeats):
            for name, path in cases.items():
                runs[name].append(process(path))
        for name, found in runs.items():
            seconds, memory = np.median(found, axis=0)
            rows.append((f"process: {name}", seconds, memory))
        for name, path in ((PHOTO.name, PHOTO), ("12 megapixels", large)):
            parts = steps([path] * options.photos)
            rows += [(f"{name}: {step}", seconds, np.nan) for step, seconds in parts.items()]
    table = pd.DataFrame(rows, columns=["what", "seconds", "memory_mb"])
    print(table.round(4).to_string(index=False))
    print(f"folders of {options.photos} photos; written to {RESULTS}")
    write_csv(RESULTS, table.round(4), index=False)


if __name__ == "__main__":
    run_stage(main)
