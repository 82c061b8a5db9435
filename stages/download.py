"""Stage download: the four IDX files of the chosen dataset, genuine and whole, in data/raw.

Sources are tried one after the other until one delivers a file with the published SHA-256: first
MNIST_MIRROR (an address or a folder), then the catalogue's mirrors. pooch checks the digest, works
on a temporary file and tries again after a pause. The files reach data/raw when all four are there.
"""

import os
import shutil
from multiprocessing import TimeoutError
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pooch
import requests
import urllib3
from tqdm import tqdm

from stages.base import params
from stages.base.stage import UserError, run_stage
from stages.dataset import catalogue, digits
from stages.dataset.catalogue import RAW, Dataset, File
from stages.dataset.settings import Download

PARTIAL = Path(".dvc/tmp/download")  # survives a failure: a second run goes on from there
TIMEOUT = (10, 20)  # seconds to connect, and to wait for the next bytes
DEADLINE = 300  # seconds for one file: below 88 kB/s, another mirror is the better choice
RETRIES = 2  # further tries of a source after a passing fault, 1 and 2 seconds later
CHUNK = 64 * 1024  # bytes


class UnreachableError(Exception):
    """A source delivered nothing, and asking again would not help."""


class PassingError(UnreachableError, ValueError):
    """A source delivered nothing this time. Being a ValueError, it makes pooch try again."""


class WrongFileError(Exception):
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
    sources = [mirror] * bool(mirror) + list(dataset.mirrors)
    for name, file in dataset.files.items():
        if _is_genuine(folder / name, file):
            (PARTIAL / name).unlink(missing_ok=True)  # of another dataset
            print(f"{name}: already there")
        elif _is_genuine(PARTIAL / name, file):
            print(f"{name}: fetched earlier")
        else:
            source = _fetch(name, file, sources, mirror)
            print(f"{name}: from {source}", flush=True)
            sources.sort(key=lambda other: other != source)  # what delivers comes first
    folder.mkdir(parents=True, exist_ok=True)
    for path in PARTIAL.glob("*.gz"):
        path.chmod(0o644)  # pooch's temporary files are for their owner alone
        os.replace(path, folder / path.name)
    shutil.rmtree(PARTIAL)


def _is_genuine(path: Path, file: File) -> bool:
    return path.is_file() and pooch.file_hash(str(path)) == file.sha256


def _fetch(name: str, file: File, sources: list[str], mirror: str | None) -> str:
    """Get one file into PARTIAL from the first source that has it; return that source."""
    causes = {}
    for source in sources:
        fetcher = pooch.create(
            path=PARTIAL,
            base_url=source if source.endswith("/") else f"{source}/",
            registry={name: f"sha256:{file.sha256}"},
            retry_if_failed=RETRIES,
        )
        get = _download if "://" in source else _copy
        try:
            fetcher.fetch(name, downloader=lambda url, to, _, get=get: get(url, Path(to), file))
            return source
        except UnreachableError as cause:
            if source == mirror:
                raise UserError(
                    f"MNIST_MIRROR={mirror}: {name}: {cause}. Correct it, or unset it to use the "
                    "sources of the catalogue"
                ) from None
            causes[source] = cause
        except (WrongFileError, ValueError) as cause:  # ValueError: pooch's word for a wrong digest
            causes[source] = WrongFileError(str(cause).split(". ")[0])
    reached = any(isinstance(cause, WrongFileError) for cause in causes.values())
    raise (UserError if reached else NoSourceError)(
        f"{name}: no source has it.\n"
        + "".join(f"  {source}: {cause}\n" for source, cause in causes.items())
        + "What you can do: try again later; or set MNIST_MIRROR to an address or a folder that "
        "has the file;\nor do without a network: dvc exp run -S download.dataset=digits"
    )


def _copy(source: str, target: Path, file: File) -> None:
    """Copy one file from a folder."""
    path = Path(source).expanduser()
    try:
        with open(path, "rb") as original:
            target.write_bytes(original.read(file.size + 1))
    except FileNotFoundError:
        found = "no such file in that folder" if path.parent.is_dir() else "no such folder"
        raise UnreachableError(found) from None
    except OSError as error:
        if error.filename != str(path):  # it is the target that cannot be written
            raise
        raise UnreachableError(f"cannot be read: {error.strerror}") from None
    _check_size(target, file)


def _download(url: str, target: Path, file: File) -> None:
    """Download one file, in bounded time and never more bytes than were published.

    The deadline is kept from outside, by leaving a thread behind: within a request there is always
    one more place where a server can send a byte every few seconds.
    """
    with ThreadPool(1) as pool:
        try:
            pool.apply_async(_transfer, (url, target, file.size)).get(DEADLINE)
        except TimeoutError:
            raise UnreachableError(f"too slow: not whole after {DEADLINE} seconds") from None
    _check_size(target, file)


def _transfer(url: str, target: Path, size: int) -> None:
    """Write what `url` sends to `target`, as it is sent and at most one chunk beyond `size`."""
    options = {"stream": True, "timeout": TIMEOUT, "headers": {"Accept-Encoding": "identity"}}
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=target.name, disable=None)
    try:
        with open(target, "wb") as output, requests.get(url, **options) as response, bar:
            response.raise_for_status()
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                output.write(chunk)
                bar.update(len(chunk))
                if output.tell() > size:
                    break
    except requests.HTTPError as error:
        passing = error.response.status_code >= 500 or error.response.status_code == 429
        kind = PassingError if passing else UnreachableError
        raise kind(f"HTTP {error.response.status_code} {error.response.reason}") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        while isinstance(cause := getattr(error, "reason", None) or error.args[0], Exception):
            error = cause  # requests wraps the cause several times
        raise PassingError(f"{type(error).__name__}: {' '.join(str(error).split())}") from None


def _check_size(path: Path, file: File) -> None:
    """Tell a truncated, an over-long and an HTML file apart before the digest just says 'wrong'."""
    size = path.stat().st_size
    if size != file.size:
        with open(path, "rb") as start:
            html = start.read(256).lstrip().startswith(b"<")
        kind = "an HTML page" if html else "over-long" if size > file.size else "truncated"
        raise WrongFileError(
            f"{kind}: {min(size, file.size + 1):,} bytes, published are {file.size:,}"
        )


def main() -> None:
    dataset = catalogue.find(params.load("download", Download).dataset)
    pooch.get_logger().setLevel("WARNING")  # it would report each temporary file
    download(dataset, RAW, os.environ.get("MNIST_MIRROR"))


if __name__ == "__main__":
    run_stage(main)
