"""The stage download, against real servers on this machine that play the faults of real ones.

The dataset is a made-up one of four small files with their true digests, so that a test decides
alone who serves what. The fault is always in the source that is asked first.
"""

import gzip
import hashlib
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from conftest import ROOT, change_params, run

from stages import download
from stages.base.stage import UserError, run_stage
from stages.dataset import catalogue
from stages.dataset.catalogue import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Dataset,
    File,
)
from stages.download import NoSourceError

NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
GENUINE = {name: np.random.default_rng(seed).bytes(3000) for seed, name in enumerate(NAMES)}
OLD = {name: b"of another dataset: " + name.encode() for name in NAMES}
MIRROR = os.environ.get("MNIST_MIRROR")


class Handler(BaseHTTPRequestHandler):
    """Notes which file is asked for and lets the server's answer play its part."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802 (the base class asks for this name)
        name = self.path.rsplit("/", 1)[-1]
        self.server.requested.append(name)
        self.close_connection = True
        with suppress(ConnectionError):  # the client has had enough
            self.server.answer(self, GENUINE[name])

    def start(self, code: int, **headers: object) -> None:
        self.send_response(code)
        for key, value in {"Connection": "close", **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


Answer = Callable[[Handler, bytes], None]


class Server(ThreadingHTTPServer):
    """A mirror whose behaviour is a function; `closing` ends an answer that would go on forever."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.requested: list[str] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/data/"


def whole(handler: Handler, body: bytes) -> None:
    handler.start(200, Content_Length=len(body))
    handler.wfile.write(body)


def without_length(handler: Handler, body: bytes) -> None:
    handler.start(200)
    handler.wfile.write(body)


def send_chunks(handler: Handler, body: bytes) -> None:
    for start in range(0, len(body), 1000):
        part = body[start : start + 1000]
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))


def chunked(handler: Handler, body: bytes) -> None:
    handler.start(200, Transfer_Encoding="chunked")
    send_chunks(handler, body)
    handler.wfile.write(b"0\r\n\r\n")


def labelled_as_gzip(handler: Handler, body: bytes) -> None:
    """Some servers declare the .gz a compressed form of the file, and clients unpack it then."""
    handler.start(200, Content_Length=len(body), Content_Encoding="gzip")
    handler.wfile.write(body)


def moved(handler: Handler, body: bytes) -> None:
    if handler.path.startswith("/elsewhere/"):
        whole(handler, body)
    else:
        handler.start(302, Location=f"/elsewhere{handler.path}", Content_Length=0)


def status(code: int) -> Answer:
    def answer(handler: Handler, _: bytes) -> None:
        handler.start(code, Content_Length=5)
        handler.wfile.write(b"sorry")

    answer.__name__ = f"status_{code}"
    return answer


def html(handler: Handler, _: bytes) -> None:
    whole(handler, b"\n<!DOCTYPE html><html>Please log in to this network.</html>")


def cut_off(handler: Handler, body: bytes) -> None:
    handler.start(200, Content_Length=len(body))
    handler.wfile.write(body[:-100])


def reset(handler: Handler, body: bytes) -> None:
    """Half of the file, then TCP's reset in place of an orderly end."""
    handler.start(200, Content_Length=len(body))
    handler.wfile.write(body[: len(body) // 2])
    time.sleep(0.2)  # else the client may lose what it has not read yet
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def zeros(handler: Handler, body: bytes) -> None:
    whole(handler, bytes(len(body)))


def gzip_bomb(handler: Handler, body: bytes) -> None:
    """Of the published length, but for a client that unpacks it, 2 MB."""
    packed = gzip.compress(bytes(2**21))
    packed += bytes(len(body) - len(packed))
    handler.start(200, Content_Length=len(body), Content_Encoding="gzip")
    handler.wfile.write(packed)


def length_too_small(handler: Handler, body: bytes) -> None:
    handler.start(200, Content_Length=len(body) - 100)
    handler.wfile.write(body)


def length_no_number(handler: Handler, body: bytes) -> None:
    handler.start(200, Content_Length="many")
    handler.wfile.write(body[:-100])


def truncated(handler: Handler, body: bytes) -> None:
    without_length(handler, body[:-100])


def flipped_bit(handler: Handler, body: bytes) -> None:
    whole(handler, body[:1500] + bytes([body[1500] ^ 1]) + body[1501:])


def over_long(handler: Handler, body: bytes) -> None:
    whole(handler, body + b"\0")


def redirect_loop(handler: Handler, _: bytes) -> None:
    handler.start(302, Location=handler.path, Content_Length=0)


def silent(handler: Handler, _: bytes) -> None:
    handler.server.closing.wait(60)


def stalling(handler: Handler, body: bytes) -> None:
    handler.start(200, Content_Length=len(body))
    handler.wfile.write(body[:1000])
    handler.server.closing.wait(60)


def drip(handler: Handler, body: bytes) -> None:
    for byte in body:
        handler.wfile.write(bytes([byte]))
        if handler.server.closing.wait(0.05):
            break


def dripping(handler: Handler, body: bytes) -> None:
    handler.start(200, Content_Length=len(body))
    drip(handler, body[:500])  # 25 seconds


def dripping_headers(handler: Handler, _: bytes) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    drip(handler, b"x" * 80)  # four seconds


def endless_chunks(handler: Handler, body: bytes) -> None:
    handler.start(200, Transfer_Encoding="chunked")
    while not handler.server.closing.is_set():
        send_chunks(handler, body)


def chunks_cut_off(handler: Handler, body: bytes) -> None:
    handler.start(200, Transfer_Encoding="chunked")
    send_chunks(handler, body)


def hanging_up(handler: Handler, _: bytes) -> None:
    pass


def no_http(handler: Handler, _: bytes) -> None:
    handler.wfile.write(b"220 mail server ready\r\n")


class Fault(NamedTuple):
    """What a server does, how the error names it, and whether that counts as a wrong file."""

    answer: Answer | None  # None: nobody listens
    cause: str
    wrong_file: bool = False
    times: dict[str, object] = {}  # of stages.download, shortened for this fault


FAULTS = {
    "403": Fault(status(403), "HTTP 403"),
    "404": Fault(status(404), "HTTP 404"),
    "500": Fault(status(500), "HTTP 500"),
    "503": Fault(status(503), "HTTP 503"),
    "html page": Fault(
        html, "an HTML page: received 59 bytes, published are 3,000", wrong_file=True
    ),
    "cut off": Fault(cut_off, "2900 bytes read, 100 more expected"),
    "truncated": Fault(
        truncated, "truncated: received 2,900 bytes, published are 3,000", wrong_file=True
    ),
    "flipped bit": Fault(flipped_bit, "hash", wrong_file=True),
    "right size, other content": Fault(zeros, "hash", wrong_file=True),
    "gzip bomb": Fault(gzip_bomb, "hash", wrong_file=True),
    "length too small": Fault(
        length_too_small, "truncated: received 2,900 bytes, published are 3,000", wrong_file=True
    ),
    "length no number": Fault(length_no_number, "truncated: received 2,900 bytes", wrong_file=True),
    "reset": Fault(reset, "reset|1500 more expected"),
    "over-long": Fault(over_long, "over-long", wrong_file=True),
    "redirect loop": Fault(redirect_loop, "redirects"),
    "connection refused": Fault(None, "refused"),
    "silent": Fault(silent, "timed out", times={"TIMEOUT": (5, 1)}),
    "stalling": Fault(stalling, "timed out", times={"TIMEOUT": (5, 1)}),
    "dripping": Fault(dripping, "too slow", times={"DEADLINE": 1}),
    "dripping headers": Fault(dripping_headers, "too slow", times={"DEADLINE": 1}),
    "endless chunks": Fault(endless_chunks, "over-long", wrong_file=True),
    "chunks cut off": Fault(chunks_cut_off, "ended prematurely"),
    "hanging up": Fault(hanging_up, "closed connection"),
    "no HTTP": Fault(no_http, "220 mail server"),
}
each_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


@pytest.fixture(autouse=True)
def _no_proxy_and_short_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setattr(download, "DEADLINE", 30)  # so that a fault not recognised ends a test


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    """A function that starts a server; all end with the test."""
    servers = []

    def start(answer: Answer) -> Server:
        server = Server(answer)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.closing.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def closed_port() -> Iterator[str]:
    """A URL where nobody listens, and nobody else can begin to while the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with the four files of another dataset."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, content in OLD.items():
        (folder / name).write_bytes(content)
    return folder


def tiny(*mirrors: str) -> Dataset:
    files = {
        name: File(size=len(body), sha256=hashlib.sha256(body).hexdigest())
        for name, body in GENUINE.items()
    }
    return catalogue.find("mnist").model_copy(update={"files": files, "mirrors": mirrors})


def choose(workspace: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `dataset` the only one in the catalogue, and params.yaml name it."""
    path = workspace / "catalogue.yaml"
    path.write_text(
        yaml.safe_dump({"tiny": dataset.model_dump(mode="json")}, sort_keys=False), encoding="utf-8"
    )
    monkeypatch.setattr(catalogue, "CATALOGUE", path)
    change_params(workspace, download__dataset="tiny")


def contents(folder: Path) -> dict[str, bytes]:
    """All there is in a folder and below; a subfolder counts as an entry without bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def shorten(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    for name, value in fault.times.items():
        monkeypatch.setattr(download, name, value)


def all_but(missing: str) -> Answer:
    """A mirror that lacks one file."""

    def answer(handler: Handler, body: bytes) -> None:
        (status(404) if handler.path.endswith(missing) else whole)(handler, body)

    return answer


@pytest.mark.parametrize(
    "answer", [whole, without_length, chunked, labelled_as_gzip, moved], ids=lambda a: a.__name__
)
def test_files_arrive_byte_for_byte_however_a_good_server_sends_them(answer, serve, raw):
    download.download(tiny(serve(answer).url), raw)
    assert contents(raw) == GENUINE


def test_files_are_readable_for_others(serve, raw):
    download.download(tiny(serve(whole).url), raw)
    assert {(raw / name).stat().st_mode & 0o777 for name in NAMES} == {0o644}


@each_fault
@pytest.mark.parametrize("position", range(3))
def test_fault_in_any_position_of_three_sources(
    position, fault, serve, closed_port, raw, monkeypatch, record_property
):
    shorten(monkeypatch, fault)
    bad = [serve(status(410)) for _ in range(position)]
    faulty = serve(fault.answer) if fault.answer else None
    url = faulty.url if faulty else closed_port
    good = [serve(whole) for _ in range(2 - position)]
    sources = [*(server.url for server in bad), url, *(server.url for server in good)]
    begin = time.monotonic()
    if good:
        download.download(tiny(*sources), raw)
        assert contents(raw) == GENUINE
        assert good[0].requested == list(NAMES)
        assert not faulty or set(faulty.requested) == {NAMES[0]}, "asked again for other files"
    else:
        with pytest.raises(UserError) as caught:
            download.download(tiny(*sources), raw)
        message = str(caught.value)
        assert message.startswith(f"{NAMES[0]}: ")
        assert re.search(f"^ *{url}: .*({fault.cause})", message, re.MULTILINE), message
        assert re.findall("^ *(http.*?): ", message, re.MULTILINE) == sources
        assert isinstance(caught.value, NoSourceError) != fault.wrong_file
        assert contents(raw) == OLD
    assert time.monotonic() - begin < 20, "less than any fault that would go on"
    record_property("faults of mirrors tried", 1)


@each_fault
def test_a_mirror_that_somebody_named_must_deliver(fault, serve, closed_port, raw, monkeypatch):
    """Files of another dataset under the same names are no fault: other sources follow."""
    shorten(monkeypatch, fault)
    mirror = serve(fault.answer).url if fault.answer else closed_port
    other = serve(whole)
    if fault.wrong_file:
        download.download(tiny(other.url), raw, mirror)
        assert contents(raw) == GENUINE
        return
    with pytest.raises(UserError) as caught:
        download.download(tiny(other.url), raw, mirror)
    assert re.match(f"MNIST_MIRROR={mirror}: {NAMES[0]}: .*({fault.cause})", str(caught.value))
    assert "unset it" in str(caught.value)
    assert not isinstance(caught.value, NoSourceError), "which would be no reason to use digits"
    assert other.requested == []
    assert contents(raw) == OLD


def test_error_tells_the_three_ways_on(closed_port, raw):
    with pytest.raises(UserError) as caught:
        download.download(tiny(closed_port), raw)
    for way in ("try again later", "MNIST_MIRROR", "download.dataset=digits"):
        assert way in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "code"), [(status(503), 3), (flipped_bit, 1)], ids=["unreachable", "wrong file"]
)
def test_exit_code_tells_unreachable_sources_from_wrong_files(
    answer, code, serve, workspace, monkeypatch, capsys
):
    choose(workspace, tiny(serve(answer).url), monkeypatch)
    with pytest.raises(SystemExit) as caught:
        run_stage(download.main)
    assert caught.value.code == code
    assert capsys.readouterr().err.startswith(f"error: {NAMES[0]}: no source has it")


@pytest.mark.parametrize(
    "passing", [status(503), status(429), cut_off, hanging_up], ids=lambda a: a.__name__
)
def test_passing_fault_is_tried_again_at_the_same_source(passing, serve, raw, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 1)

    def answer(handler: Handler, body: bytes) -> None:
        (passing if len(handler.server.requested) == 1 else whole)(handler, body)

    server = serve(answer)
    download.download(tiny(server.url), raw)
    assert contents(raw) == GENUINE
    assert server.requested == [NAMES[0], *NAMES]


@pytest.mark.parametrize("answer", [status(404), html], ids=lambda a: a.__name__)
def test_lasting_fault_is_not_tried_again(answer, serve, raw, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 1)
    server = serve(answer)
    with pytest.raises(UserError):
        download.download(tiny(server.url), raw)
    assert server.requested == [NAMES[0]]


def test_over_long_body_is_not_read_to_its_end(serve, raw):
    sent = 0

    def answer(handler: Handler, body: bytes) -> None:
        nonlocal sent
        handler.start(200, Content_Length=10**12)
        while not handler.server.closing.is_set():
            sent += handler.wfile.write(body * 100)

    with pytest.raises(UserError, match="over-long: received "):
        download.download(tiny(serve(answer).url), raw)
    assert sent < 100e6
    assert contents(raw) == OLD


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_mnist_mirror_comes_before_the_catalogue(
    kind, serve, tmp_path_factory, workspace, monkeypatch
):
    mirror = serve(whole)
    catalogues = serve(whole)
    folder = tmp_path_factory.mktemp("mirror")
    for name, body in GENUINE.items():
        (folder / name).write_bytes(body)
    choose(workspace, tiny(catalogues.url), monkeypatch)
    monkeypatch.setenv("MNIST_MIRROR", str(folder) if kind == "folder" else mirror.url.rstrip("/"))
    download.main()
    assert contents(workspace / "data/raw") == GENUINE
    assert catalogues.requested == []
    assert mirror.requested == ([] if kind == "folder" else list(NAMES))


def test_empty_mnist_mirror_counts_as_unset(serve, workspace, monkeypatch):
    choose(workspace, tiny(serve(whole).url), monkeypatch)
    monkeypatch.setenv("MNIST_MIRROR", "")
    download.main()
    assert contents(workspace / "data/raw") == GENUINE


def test_genuine_files_are_kept_without_a_request(serve, raw):
    server = serve(whole)
    download.download(tiny(server.url), raw)
    server.requested.clear()
    times = [(raw / name).stat().st_mtime_ns for name in NAMES]
    download.download(tiny(server.url), raw)
    assert server.requested == []
    assert [(raw / name).stat().st_mtime_ns for name in NAMES] == times
    assert contents(raw) == GENUINE


def test_corrupted_file_is_replaced_and_only_it_is_fetched(serve, raw):
    server = serve(whole)
    download.download(tiny(server.url), raw)
    server.requested.clear()
    damaged = bytearray(GENUINE[TEST_IMAGES])
    damaged[-1] ^= 128
    (raw / TEST_IMAGES).write_bytes(damaged)
    download.download(tiny(server.url), raw)
    assert server.requested == [TEST_IMAGES]
    assert contents(raw) == GENUINE


def test_incomplete_fetch_leaves_the_old_files_and_is_continued_by_the_next(serve, raw, capsys):
    with pytest.raises(NoSourceError, match=TEST_IMAGES):
        download.download(tiny(serve(all_but(TEST_IMAGES)).url), raw)
    kept = contents(raw)
    assert {name: kept[name] for name in NAMES} == OLD
    capsys.readouterr()
    server = serve(whole)
    download.download(tiny(server.url), raw)
    assert server.requested == [TEST_IMAGES, TEST_LABELS]
    assert contents(raw) == GENUINE
    assert f"{TRAIN_IMAGES}: from {server.url}" not in capsys.readouterr().out


def test_unknown_dataset_stops_with_one_line_that_names_the_known(workspace):
    change_params(workspace, download__dataset="mnits")
    with pytest.raises(UserError) as caught:
        download.main()
    message = str(caught.value)
    assert "\n" not in message
    assert "download.dataset" in message
    for name in ("mnits", "mnist", "fashion_mnist", "kmnist", "digits"):
        assert name in message
    assert not (workspace / "data").exists()


def test_unwritable_data_folder_stops_with_one_line(workspace):
    (workspace / "data").write_text("a file in the way")
    result = run(
        "python", "-m", "stages.download", cwd=workspace, check=False, PYTHONPATH=str(ROOT)
    )
    assert result.returncode == 1
    assert re.fullmatch(r"error: data/?.*: .+\n", result.stderr), result.stderr
    assert (workspace / "data").read_text() == "a file in the way"


def test_digits_are_made_without_a_network_and_look_like_mnist(workspace, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("digits must not need a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    download.main()
    files = contents(workspace / "data/raw")
    assert set(files) == set(NAMES)
    arrays = {name: np.frombuffer(gzip.decompress(files[name]), np.uint8) for name in NAMES}
    for images, labels, count in (
        (TRAIN_IMAGES, TRAIN_LABELS, 1437),
        (TEST_IMAGES, TEST_LABELS, 360),
    ):
        pictures = arrays[images][16:].reshape(count, 28, 28)
        assert pictures[:, 4:-4, 4:-4].any(axis=(1, 2)).all()
        margin = np.ones((28, 28), bool)
        margin[4:-4, 4:-4] = False
        assert not pictures[:, margin].any()
        assert pictures.max() == 255
        shares = np.bincount(arrays[labels][8:], minlength=10) / count
        assert len(arrays[labels][8:]) == count
        assert shares.shape == (10,)
        assert (abs(shares - 0.1) < 0.01).all()


def test_digits_are_the_same_bytes_whenever_they_are_made(workspace, monkeypatch):
    download.main()
    first = contents(workspace / "data/raw")
    monkeypatch.setattr(time, "time", lambda: 1e9)  # gzip would note the time
    download.main()
    assert contents(workspace / "data/raw") == first


@pytest.mark.skipif(not MIRROR, reason="needs MNIST: set MNIST_MIRROR to a URL or a folder with it")
def test_real_mnist_has_the_digests_that_others_publish(workspace, monkeypatch):
    change_params(workspace, download__dataset="mnist")
    monkeypatch.setenv("MNIST_MIRROR", MIRROR)
    download.main()
    digests = {
        name: hashlib.md5(content).hexdigest()
        for name, content in contents(workspace / "data/raw").items()
    }
    assert digests == {  # torchvision.datasets.MNIST
        TRAIN_IMAGES: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        TRAIN_LABELS: "d53e105ee54ea40749a09fcbcd1e9432",
        TEST_IMAGES: "9fb629c4189551a2d022fa330f9573f3",
        TEST_LABELS: "ec29112dd5afa0611ce80d1b7f02629c",
    }


@pytest.mark.parametrize("address", ["nonsense://host/", "http://", "http://[::1/", "no/folder"])
def test_an_address_or_folder_that_cannot_be_is_told(address, raw):
    with pytest.raises(UserError, match=re.escape(f"MNIST_MIRROR={address}: ")):
        download.download(tiny(), raw, mirror=address)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ({}, "No such file"),
        ({NAMES[0]: b"short"}, "truncated: received 5 "),
        ({NAMES[0]: bytes(3000)}, "hash"),
    ],
    ids=["empty", "truncated", "other content"],
)
def test_a_folder_without_genuine_files_is_told(content, cause, tmp_path, raw):
    for name, body in content.items():
        (tmp_path / name).write_bytes(body)
    with pytest.raises(UserError, match=f"{tmp_path}: .*{cause}"):
        download.download(tiny(), raw, mirror=str(tmp_path))
    assert contents(raw) == OLD


def test_what_another_datasets_fetch_left_is_not_taken_for_this_one(serve, raw):
    """Fetch one dataset, fail on the way to another, go back: the first one's files must stand."""
    server = serve(whole)
    download.download(tiny(server.url), raw)
    download.PARTIAL.mkdir(parents=True)
    (download.PARTIAL / TRAIN_IMAGES).write_bytes(b"a genuine file of the other dataset")
    download.download(tiny(server.url), raw)
    assert contents(raw) == GENUINE


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_catalogue_entry_is_complete(name):
    entry = catalogue.find(name)
    assert set(entry.files) == set(NAMES)
    assert len({file.sha256 for file in entry.files.values()}) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in entry.files.values())
    assert len(set(entry.mirrors)) >= 2
    assert len(set(entry.classes)) == len(entry.classes) == 10
