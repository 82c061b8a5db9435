"""Stage download: the four IDX files of the chosen dataset, genuine and whole, in data/raw.

Sources are tried one after the other until one delivers a file with the published SHA-256: first
MNIST_MIRROR (an address or a folder), then the catalogue's mirrors. pooch checks the digest, works
on a temporary file and tries again after a pause. The files reach data/raw when all four are there.
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
from stages.dataset.settings import Download

PARTIAL = Path(".dvc/tmp/download")  # survives a failure: a second run goes on from there
TIMEOUT = (10, 20)  # seconds to connect, and to wait for the next bytes
DEADLINE = 300  # seconds for one file: below 88 kB/s, another mirror is the better choice
RETRIES = 2  # further tries of a source after a passing fault, 1 and 2 seconds later
CHUNK = 64 * 1024  # bytes


class SourceError(Exception):
    """A source did not deliver the published file."""


class WrongFileError(SourceError):
    """A source delivered something that is not the published file."""


class NoSourceError(UserError):
    """No source could be reached; tools/run.py tells this from other faults by the exit code."""

    exit_code = 3


def download(dataset: Dataset, folder: Path, mirror: str | None = None) -> None:
    """Bring the four files of `dataset` into `folder`; those that are there and match are kept.

    Args:
        dataset: an entry of the catalogue.
        folder: where the files go; if this fails, the files it holds stay as they are.
        mirror: an address or a folder to try before the catalogue's mirrors; that it delivers
            nothing is an error, since somebody named it. Files of another dataset are no error.

    Raises:
        NoSourceError: no source could be reached for some file.
        UserError: `mirror` delivered nothing, or no source has the genuine file.
    """
    PARTIAL.mkdir(parents=True, exist_ok=True)
    if not dataset.files:
        digits.write_digits(PARTIAL)
        print("digits: made from the scans that scikit-learn carries")
    sources = [mirror, *dataset.mirrors] if mirror else list(dataset.mirrors)
    for name, file in dataset.files.items():
        there = folder / name
        if there.is_file() and pooch.file_hash(str(there)) == file.sha256:
            print(f"{name}: already there")
            (PARTIAL / name).unlink(missing_ok=True)  # of another dataset
        else:
            source = _fetch(name, file, sources, mirror)
            sources.remove(source)
            sources.insert(0, source)  # what delivers comes first
    folder.mkdir(parents=True, exist_ok=True)
    with replacing_together() as new:
        for path in PARTIAL.glob("*.gz"):  # copied: `folder` may be on another file system
            new(folder / path.name).write_bytes(path.read_bytes())
    shutil.rmtree(PARTIAL)


def _fetch(name: str, file: File, sources: list[str], mirror: str | None) -> str:
    """Get one file into PARTIAL from the first source that has it; return that source."""
    causes = {}
    for source in sources:
        try:
            _fetch_from(source, name, file)
            return source
        except SourceError as cause:
            if source == mirror and not isinstance(cause, WrongFileError):
                raise UserError(
                    f"MNIST_MIRROR={mirror}: {name}: {cause}. Correct it, or unset it to use the "
                    "sources of the catalogue"
                ) from None
            causes[source] = cause
    reached = any(isinstance(cause, WrongFileError) for cause in causes.values())
    lines = "".join(f"  {source}: {cause}\n" for source, cause in causes.items())
    raise (UserError if reached else NoSourceError)(
        f"{name}: no source has it.\n{lines}"
        "What you can do: try again later; or set MNIST_MIRROR to an address or a folder that "
        "has the file;\nor do without a network: dvc exp run -S download.dataset=digits"
    )


def _fetch_from(source: str, name: str, file: File) -> None:
    """Get one file into PARTIAL from one source, unless PARTIAL has it already.

    Raises:
        SourceError: it delivers nothing. pooch has tried a RequestException or ValueError again.
        WrongFileError: it delivers something else.
    """
    get = _download if "://" in source else _copy

    def get_checked(url: str, target: str, _: object) -> None:
        print(f"{name}: from {source}", flush=True)
        get(url, Path(target), file.size)
        _check_size(Path(target), file.size)

    registry = {name: f"sha256:{file.sha256}"}
    fetcher = pooch.create(PARTIAL, source, registry=registry, retry_if_failed=RETRIES)
    try:
        fetcher.fetch(name, downloader=get_checked)
    except requests.RequestException as error:
        # A connection that fails is wrapped twice; the reason inside is the part to read.
        raise SourceError(getattr(error.args[0], "reason", error)) from None
    except ValueError as error:  # pooch's word for a wrong digest
        raise WrongFileError(error) from None


def _copy(source: str, target: Path, size: int) -> None:
    """Copy one file from a folder, and never more than a byte beyond `size`."""
    try:
        with open(Path(source).expanduser(), "rb") as file:
            content = file.read(size + 1)
    except OSError as error:
        raise SourceError(error.strerror) from None
    target.write_bytes(content)


def _download(url: str, target: Path, size: int) -> None:
    """Download one file in bounded time.

    The deadline is kept from outside, by leaving a thread behind: within a request there is always
    one more place where a server can send a byte every few seconds.
    """
    with multiprocessing.pool.ThreadPool(1) as pool:
        try:
            pool.apply_async(_transfer, (url, target, size)).get(DEADLINE)
        except multiprocessing.TimeoutError:
            raise SourceError(f"too slow: not whole after {DEADLINE} seconds") from None


def _transfer(url: str, target: Path, size: int) -> None:
    """Write what `url` sends to `target`, as it is sent and at most one chunk beyond `size`."""
    headers = {"Accept-Encoding": "identity"}
    with (
        open(target, "wb") as output,
        requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response,
        tqdm(total=size, unit="B", unit_scale=True, desc=Path(url).name, disable=None) as bar,
    ):
        if not response.ok:
            passing = response.status_code >= 500 or response.status_code == 429
            kind = requests.HTTPError if passing else SourceError  # pooch tries the former again
            raise kind(f"HTTP {response.status_code} {response.reason}")
        response.raw.headers.discard("Content-Encoding")  # else the .gz may come out unpacked
        for chunk in response.iter_content(CHUNK):
            output.write(chunk)
            bar.update(len(chunk))
            if output.tell() > size:
                break


def _check_size(path: Path, size: int) -> None:
    """Tell a truncated, an over-long and an HTML file apart before the digest just says 'wrong'."""
    content = path.read_bytes()
    if len(content) != size:
        kind = "over-long" if len(content) > size else "truncated"
        if content.lstrip().startswith(b"<"):
            kind = "an HTML page"
        raise WrongFileError(f"{kind}: received {len(content):,} bytes, published are {size:,}")


def main() -> None:
    dataset = catalogue.find(params.load("download", Download).dataset)
    pooch.get_logger().setLevel("WARNING")  # it would report each temporary file
    download(dataset, RAW, os.environ.get("MNIST_MIRROR"))


if __name__ == "__main__":
    run_stage(main)
