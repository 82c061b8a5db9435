"""Stage 1, download: the four IDX files of the chosen dataset, genuine and whole, in data/raw.

Sources are tried one after the other until one delivers a file with the published SHA-256: first
MNIST_MIRROR (a URL or a folder), then the catalogue's mirrors. pooch checks the digest, works on a
temporary file and tries again after a pause. The files reach data/raw only when all four are there.
"""

import os
import shutil
import threading
from collections import Counter
from pathlib import Path

import pooch
import requests
import urllib3
from tqdm import tqdm

from stages.dataset import catalogue as datasets
from stages.base import params
from stages.dataset.catalogue import RAW, Dataset, File
from stages.base.stage import UserError, run_stage

TIMEOUT = (10, 20)  # seconds to connect, and to wait for the next bytes
DEADLINE = 300  # seconds for one file: below 88 kB/s, another mirror is the better choice
RETRIES = 2  # further tries of a source after a passing fault, 1 and 2 seconds later
CHUNK = 64 * 1024  # bytes


class UnreachableError(Exception):
    """A source delivered nothing, and asking again would not help."""


class PassingError(UnreachableError, ValueError):
    """A source delivered nothing this time. Being a ValueError, it makes pooch try again."""


class WrongFileError(Exception):
    """A source delivered something that cannot be the published file."""


class NoSourceError(UserError):
    """No source could be reached; `make` tells this from other faults by the exit code."""

    exit_code = 3


def download(dataset: Dataset, folder: Path, mirror: str | None = None) -> None:
    """Bring the four files of `dataset` into `folder`; those that are there and match are kept.

    Args:
        dataset: an entry of the catalogue.
        folder: where the files go; if this fails, the files it holds stay as they are.
        mirror: a URL or a folder to try before the catalogue's mirrors.

    Raises:
        NoSourceError: no source could be reached for some file.
        UserError: sources were reached, but none has the genuine file.
    """
    partial = folder / "partial.tmp"  # survives a failure, so that a second run goes on from there
    partial.mkdir(parents=True, exist_ok=True)
    try:
        if not dataset.files:
            from stages.dataset.digits import (
                write_digits,  # here: scikit-learn takes seconds to import
            )

            write_digits(partial)
            print("digits: made from the scans that scikit-learn carries")
        failures = Counter({source: 0 for source in [mirror, *dataset.mirrors] if source})
        for name, file in dataset.files.items():
            if _is_genuine(folder / name, file):
                (partial / name).unlink(missing_ok=True)  # left by a fetch of another dataset
                print(f"{name}: already there")
            elif _is_genuine(partial / name, file):
                print(f"{name}: already fetched by an earlier run")
            else:
                print(f"{name}: from {_fetch(name, file, partial, failures)}", flush=True)
        for path in partial.glob("*.gz"):
            path.chmod(0o644)  # pooch's temporary files are for their owner alone
            os.replace(path, folder / path.name)
    finally:
        if not any(partial.glob("*.gz")):
            shutil.rmtree(partial)


def _is_genuine(path: Path, file: File) -> bool:
    return path.is_file() and pooch.file_hash(str(path)) == file.sha256


def _fetch(name: str, file: File, folder: Path, failures: Counter) -> str:
    """Get one file from the first source that has it; return that source, count the failures."""
    causes = {}
    for source in sorted(failures, key=failures.__getitem__):  # those that failed before come last
        fetcher = pooch.create(
            path=folder,
            base_url=source if source.endswith("/") else f"{source}/",
            registry={name: f"sha256:{file.sha256}"},
            retry_if_failed=RETRIES,
        )
        get = _download if "://" in source else _copy
        try:
            fetcher.fetch(name, downloader=lambda url, to, _, get=get: get(url, Path(to), file))
            return source
        except (UnreachableError, WrongFileError) as cause:
            causes[source] = cause
        except ValueError as error:  # pooch's word for a wrong digest
            causes[source] = WrongFileError(str(error).split(". ")[0])
        failures[source] += 1
    reached = any(isinstance(cause, WrongFileError) for cause in causes.values())
    raise (UserError if reached else NoSourceError)(
        f"{name}: no source has it.\n"
        + "".join(f"  {source}: {cause}\n" for source, cause in causes.items())
        + "What you can do: try again later; or set MNIST_MIRROR to a URL or a folder that has the "
        "file;\nor run without a network: dvc exp run -S download.dataset=digits"
    )


def _copy(source: str, target: Path, file: File) -> None:
    """Copy one file from a folder."""
    path = Path(source).expanduser()
    if not path.is_file():
        raise UnreachableError(
            "no such file in that folder" if path.parent.is_dir() else "no folder"
        )
    try:
        with open(path, "rb") as original:
            content = original.read(file.size + 1)
    except OSError as error:
        raise UnreachableError(f"cannot be read: {error.strerror}") from None
    target.write_bytes(content)
    _check_size(target, file)


def _download(url: str, target: Path, file: File) -> None:
    """Download one file, in bounded time and never more bytes than were published.

    The deadline is kept from outside, by leaving a thread behind: within a request there is always
    one more place where a server can send a byte every few seconds.
    """
    errors = []

    def transfer() -> None:
        try:
            _transfer(url, target, file.size)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=transfer, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    if thread.is_alive():
        raise UnreachableError(f"too slow: not whole after {DEADLINE} seconds")
    if errors:
        raise errors[0]
    _check_size(target, file)


def _transfer(url: str, target: Path, size: int) -> None:
    """Write what `url` sends to `target`, as it is sent and at most one chunk beyond `size`."""
    try:
        with (
            open(target, "wb") as output,
            requests.get(
                url,
                stream=True,
                timeout=TIMEOUT,
                headers={"Accept-Encoding": "identity"},
                hooks={"response": _skip_body_of_redirect},
            ) as response,
            tqdm(total=size, unit="B", unit_scale=True, desc=target.name, disable=None) as bar,
        ):
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
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise PassingError(_innermost(error)) from None
    except requests.RequestException as error:  # a loop of redirects, a malformed address
        raise UnreachableError(_innermost(error)) from None


def _skip_body_of_redirect(response: requests.Response, **_: object) -> None:
    """requests would read it to its end, however long."""
    if response.is_redirect:
        response.raw.close()


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


def _innermost(error: BaseException) -> str:
    """The cause at the bottom of requests' chain of wrapped errors, in one line."""
    reason = getattr(error, "reason", None) or (error.args[0] if error.args else None)
    while isinstance(reason, BaseException):
        error, reason = reason, getattr(reason, "reason", None) or (reason.args or [None])[0]
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def main() -> None:
    dataset = datasets.find(params.load().download.dataset)
    pooch.get_logger().setLevel("WARNING")  # it would report each temporary file
    download(dataset, RAW, os.environ.get("MNIST_MIRROR"))


if __name__ == "__main__":
    run_stage(main)
