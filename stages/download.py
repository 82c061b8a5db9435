"""Stage download: the chosen dataset as IDX files in data/raw, and dataset.json beside them.

A published dataset (catalogue.yaml) comes from the first source that has the genuine files, told by
their SHA-256: first MNIST_MIRROR (an address or a folder), then the catalogue's mirrors. pooch
checks the digest, writes to a temporary file and tries a source again after a pause. The files
reach data/raw when all are there.
"""

import multiprocessing.pool
import os
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from stages.base import data, params
from stages.base.data import RAW, DatasetInfo
from stages.base.files import atomic_output, atomic_outputs
from stages.base.stage import UserError, run_stage
from stages.dataset import catalogue, digits, idx
from stages.dataset.catalogue import UNREACHABLE, Entry, File
from stages.dataset.folder import OWN, subfolders, write_folder

# Genuine files stay here: a second run, or one after a failure, need not download them again.
KEPT = Path(".dvc/tmp/download")
TIMEOUT = (10, 20)  # seconds to connect, and to wait for the next bytes
DEADLINE = 300  # seconds for one file; the largest, 26 MB, needs 88 kB/s
RETRIES = 2  # further tries of an address, 1 and 2 seconds later
CHUNK = 64 * 1024  # bytes


class NoSourceError(UserError):
    """No source could be reached."""


def download(name: str, folder: Path, mirror: str | None = None) -> DatasetInfo:
    """Bring the files of a published dataset into `folder`.

    Args:
        name: of an entry of the catalogue.
        folder: where the files go; if this fails, the files it holds stay as they are.
        mirror: an address or a folder to try before the catalogue's mirrors. If it delivers
            nothing, that is an error, since somebody named it; if it has other files under these
            names, as the mirror of another dataset has, the next source is tried.

    Returns:
        What is known of the dataset, with what the files' headers say.

    Raises:
        NoSourceError: no source could be reached for some file.
        UserError: `mirror` delivered nothing, no source has the genuine file, or the files don't
            fit each other.
    """
    entry, kept = catalogue.find(name), KEPT / name
    sources = [mirror, *entry.mirrors] if mirror else list(entry.mirrors)
    for file_name, file in entry.files.items():
        source = _fetch(file_name, file, kept, sources, mirror)
        sources.remove(source)
        sources.insert(0, source)  # what delivers comes first
    info = describe(name, entry, kept)
    with atomic_outputs() as temporary:
        for file_name in entry.files:  # copied: `folder` may be on another file system
            temporary(folder / file_name).write_bytes((kept / file_name).read_bytes())
    return info


def describe(name: str, entry: Entry, folder: Path) -> DatasetInfo:
    """What is known of a published dataset: its entry, and what its files' headers say.

    Raises:
        UserError: they don't fit each other.
    """
    files = {s: folder / f for s in idx.PREFIXES for f in entry.files if f in idx.of_images(s)}
    shapes = {split: idx.read_shape(path) for split, path in files.items()}
    (count, *size), (_, *of_test) = shapes["train"], shapes["test"]
    if len(size) < 2 or size != of_test:
        raise UserError(
            f"{files['test']}: expected images of the shape {size}, as those of "
            f"{files['train'].name}, found {of_test}"
        )
    tests = shapes["test"][0]
    if wrong := [number for number in entry.disputed if number >= tests]:
        raise UserError(
            f"{catalogue.CATALOGUE}: {name}.disputed: expected numbers of the {tests:,} test "
            f"images, found {wrong[0]}"
        )
    return DatasetInfo(
        name=name,
        subject=entry.subject,
        licence=entry.licence,
        classes=entry.classes,
        height=size[0],
        width=size[1],
        channels=size[2] if len(size) > 2 else 1,
        images={"train": count, "test": tests},
        disputed=entry.disputed,
    )


def _fetch(name: str, file: File, kept: Path, sources: list[str], mirror: str | None) -> str:
    """Get one file into `kept` from the first source that has it; return that source."""
    causes, kind = "", NoSourceError
    for source in sources:
        try:
            _fetch_from(source, name, file, kept)
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
        "has the file;\nor work offline: dvc exp run -S download.dataset=digits"
    )


def _fetch_from(source: str, name: str, file: File, kept: Path) -> None:
    """Get one file into `kept` from one source, unless it is there already.

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
    fetcher = pooch.create(kept, source, registry=registry, retry_if_failed=retries)
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
    settings = params.load().download
    name, published = settings.dataset, [*catalogue.names(), digits.NAME]
    own = [path.name for path in subfolders(OWN)] if OWN.is_dir() else []
    if both := {*own} & {*published}:
        raise UserError(f"{OWN / both.pop()}: a published dataset has this name: rename the folder")
    if name in own:
        data.write_info(write_folder(OWN / name, RAW, settings), RAW)
        return
    if name not in published:
        known = ", ".join(published)
        raise UserError(
            f"params.yaml: download.dataset: expected one of {known}, or a folder in {OWN} (there: "
            f"{', '.join(own) or 'none'}), found {name!r}. DVC's queue and --temp see only what is "
            f"tracked: dvc add {OWN / name}, then git add {OWN / name}.dvc"
        )
    if name == digits.NAME:
        digits.write_digits(RAW)
        info = digits.INFO
        print("digits: made from the scans that scikit-learn carries")
    else:
        pooch.get_logger().setLevel("WARNING")  # it would report each temporary file
        try:
            info = download(name, RAW, os.environ.get("MNIST_MIRROR"))
        except NoSourceError as error:  # for tools/run.py, to which DVC tells no more than "failed"
            with atomic_output(UNREACHABLE) as temporary:
                temporary.write_text(f"{error}\n", encoding="utf-8")
            raise
    data.write_info(info, RAW)


if __name__ == "__main__":
    run_stage(main, __doc__)
