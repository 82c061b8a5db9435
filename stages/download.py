"""Stage download: the four IDX files of the chosen dataset, genuine and whole, in data/raw.

Sources are tried one after the other until one delivers a file with the published SHA-256: first
MNIST_MIRROR (an address or a folder), then the catalogue's mirrors. pooch checks the digest, writes
to a temporary file and tries a source again after a pause. The files reach data/raw when all four
are there.
"""

import multiprocessing.pool
import os
import shutil
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from stages.base import params
from stages.base.files import replacing_together
from stages.base.stage import UserError, run_stage
from stages.dataset import catalogue, digits
from stages.dataset.catalogue import RAW, Dataset, File
from stages.dataset.settings import UNREACHABLE, Download

PARTIAL = Path(".dvc/tmp/download")  # survives a failure: a second run goes on from there
TIMEOUT = (10, 20)  # seconds to connect, and to wait for the next bytes
DEADLINE = 300  # seconds for one file; the largest, 26 MB, needs 88 kB/s
RETRIES = 2  # further tries of an address, 1 and 2 seconds later
CHUNK = 64 * 1024  # bytes


class NoSourceError(UserError):
    """No source could be reached."""


def download(dataset: Dataset, folder: Path, mirror: str | None = None) -> None:
    """Bring the four files of `dataset` into `folder`.

    Args:
        dataset: an entry of the catalogue.
        folder: where the files go; if this fails, the files it holds stay as they are.
        mirror: an address or a folder to try before the catalogue's mirrors. If it delivers
            nothing, that is an error, since somebody named it; if it has other files under these
            names, as the mirror of another dataset has, the next source is tried.

    Raises:
        NoSourceError: no source could be reached for some file.
        UserError: `mirror` delivered nothing, or no source has the genuine file.
    """
    if not dataset.files:
        digits.write_digits(PARTIAL)
        print("digits: made from the scans that scikit-learn carries")
    sources = [mirror, *dataset.mirrors] if mirror else list(dataset.mirrors)
    for name, file in dataset.files.items():
        source = _fetch(name, file, sources, mirror)
        sources.remove(source)
        sources.insert(0, source)  # what delivers comes first
    with replacing_together() as new:
        for path in PARTIAL.glob("*.gz"):  # copied: `folder` may be on another file system
            new(folder / path.name).write_bytes(path.read_bytes())
    shutil.rmtree(PARTIAL)


def _fetch(name: str, file: File, sources: list[str], mirror: str | None) -> str:
    """Get one file into PARTIAL from the first source that has it; return that source."""
    causes, kind = "", NoSourceError
    for source in sources:
        try:
            _fetch_from(source, name, file)
            return source
        except (requests.RequestException, ConnectionError) as error:
            # requests wraps urllib3's error, and that one the system's, which is the one to read.
            cause = getattr(error.args[0], "reason", error)
            if source == mirror:
                raise UserError(
                    f"MNIST_MIRROR={mirror}: {name}: {cause}. Correct it, or unset it to use the "
                    "sources of the catalogue"
                ) from None
        except ValueError as error:  # pooch's for a wrong digest
            cause, kind = error, UserError
        causes += f"  {source}: {cause}\n"
    raise kind(
        f"{name}: no source has it.\n{causes}"
        "What you can do: try again later; or set MNIST_MIRROR to an address or a folder that "
        "has the file;\nor do without a network: dvc exp run -S download.dataset=digits"
    )


def _fetch_from(source: str, name: str, file: File) -> None:
    """Get one file into PARTIAL from one source, unless PARTIAL has it already.

    Raises:
        RequestException, ConnectionError: the source does not deliver it.
        ValueError: the source delivers something else.
    """
    is_url = "://" in source

    def get(url: str, target: str, _: object) -> None:
        print(f"{name}: from {source}", flush=True)
        (_download if is_url else _copy)(url, Path(target), file.size)
        if (size := os.path.getsize(target)) != file.size:
            raise ValueError(f"received {size:,} bytes, published are {file.size:,}")

    registry = {name: f"sha256:{file.sha256}"}
    retries = RETRIES if is_url else 0
    fetcher = pooch.create(PARTIAL, source, registry=registry, retry_if_failed=retries)
    fetcher.fetch(name, downloader=get)


def _copy(source: str, target: Path, size: int) -> None:
    """Copy one file from a folder, and never more than a byte beyond `size`."""
    try:
        with open(Path(source).expanduser(), "rb") as file:
            content = file.read(size + 1)
    except OSError as error:
        raise ConnectionError(error.strerror) from None
    target.write_bytes(content)


def _download(url: str, target: Path, size: int) -> None:
    """Download one file within DEADLINE.

    requests has no limit for a whole request: TIMEOUT never ends one whose server sends a byte
    every few seconds. So it runs in a thread, which is left behind at the deadline.
    """
    with multiprocessing.pool.ThreadPool(1) as pool:
        try:
            pool.apply_async(_transfer, (url, target, size)).get(DEADLINE)
        except multiprocessing.TimeoutError:
            raise ConnectionError(f"too slow: not whole after {DEADLINE} seconds") from None


def _transfer(url: str, target: Path, size: int) -> None:
    """Write what `url` sends to `target`, as it is sent and at most one chunk beyond `size`."""
    headers = {"Accept-Encoding": "identity"}
    with (
        open(target, "wb") as output,
        requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response,
        tqdm(total=size, unit="B", unit_scale=True, desc=Path(url).name, disable=None) as bar,
    ):
        response.raise_for_status()
        response.raw.headers.discard("Content-Encoding")  # else the .gz may come out unpacked
        for chunk in response.iter_content(CHUNK):
            output.write(chunk)
            bar.update(len(chunk))
            if output.tell() > size:
                break


def main() -> None:
    dataset = catalogue.find(params.load("download", Download).dataset)
    pooch.get_logger().setLevel("WARNING")  # it would report each temporary file
    try:
        download(dataset, RAW, os.environ.get("MNIST_MIRROR"))
    except NoSourceError:  # tools/run.py tells this from other faults
        UNREACHABLE.parent.mkdir(parents=True, exist_ok=True)
        UNREACHABLE.touch()
        raise


if __name__ == "__main__":
    run_stage(main)
