"""The stage download, against servers on this machine that play the faults of real ones."""

import functools
import gzip
import hashlib
import math
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
from conftest import change_params, contents

from stages import download
from stages.base import data
from stages.base.data import DatasetInfo
from stages.base.stage import UserError
from stages.dataset import catalogue, idx
from stages.download import NoSourceError

NAMES = tuple(
    name(split) for split in ("train", "test") for name in (idx.images_file, idx.labels_file)
)
TEST_IMAGES = idx.images_file("test")
SIZE = 3000  # of each file, in bytes


def genuine(number: int) -> bytes:
    """The file NAMES[number]: 3 training or 2 test images; gzip allows zeros at its end."""
    shape = (2 + (number < 2), 28, 28)[: 1 if number % 2 else 3]
    header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    content = header + np.random.default_rng(number).bytes(math.prod(shape))
    return gzip.compress(content, mtime=0).ljust(SIZE, b"\0")


GENUINE = {name: genuine(number) for number, name in enumerate(NAMES)}
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

    def __init__(self, answer: Answer | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.server_bind()  # if nobody listens there, nobody else can begin to
        self.answer = answer
        self.requested: list[str] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/data/"


def sends(change: Callable[[bytes], bytes] = bytes, code: int = 200, **headers: object) -> Answer:
    """An answer with these headers and what `change` makes of the file."""

    def answer(handler: Handler, body: bytes) -> None:
        handler.start(code, **headers)
        handler.wfile.write(change(body))

    return answer


def status(code: int) -> Answer:
    return sends(lambda _: b"sorry", code, Content_Length=5)


def without_end(body: bytes) -> bytes:
    return body[:-100]


def endless(handler: Handler, body: bytes) -> None:
    handler.start(200)
    while not handler.server.closing.is_set():
        handler.wfile.write(body)


def silent(handler: Handler, _: bytes) -> None:
    handler.server.closing.wait(60)


def stalling(handler: Handler, body: bytes) -> None:
    handler.start(200, Content_Length=SIZE)
    handler.wfile.write(body[:1000])
    silent(handler, body)


def dripping(handler: Handler, body: bytes) -> None:
    handler.start(200, Content_Length=SIZE)
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(body[:1])


def dripping_headers(handler: Handler, body: bytes) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(b"x")


whole = sends(Content_Length=SIZE)
GOOD = {
    "whole": whole,
    "without length": sends(),
    # Some servers declare the .gz a compressed form of the file, and clients unpack it then.
    "labelled as gzip": sends(Content_Length=SIZE, Content_Encoding="gzip"),
}
BOMB = gzip.compress(bytes(2**21)).ljust(SIZE, b"\0")  # for a client that unpacks it, 2 MB


def flip(body: bytes) -> bytes:
    return body[:1500] + bytes([body[1500] ^ 1]) + body[1501:]


class Fault(NamedTuple):
    """What a server does, how the error names it, and whether that counts as a wrong file."""

    answer: Answer | None  # None: nobody listens
    cause: str
    times: dict[str, object] = {}  # of stages.download, shortened for this fault
    wrong_file: bool = False


wrong = functools.partial(Fault, wrong_file=True)
FAULTS = {
    "503": Fault(status(503), "503 Server Error"),
    "html page": wrong(sends(lambda _: b"<html>" * 5), "received 30 bytes, published are 3,000"),
    "cut off": Fault(sends(without_end, Content_Length=SIZE), "2900 bytes read, 100 more expected"),
    "truncated": wrong(sends(without_end), "received 2,900 bytes, published are 3,000"),
    "flipped bit": wrong(sends(flip, Content_Length=SIZE), "hash"),
    "gzip bomb": wrong(sends(lambda _: BOMB, Content_Length=SIZE, Content_Encoding="gzip"), "hash"),
    "over-long": wrong(sends(lambda body: body + b"\0", Content_Length=SIZE + 1), "3,001 bytes"),
    "connection refused": Fault(None, "refused"),
    "silent": Fault(silent, "timed out", times={"TIMEOUT": (5, 1)}),
    "stalling": Fault(stalling, "timed out", times={"TIMEOUT": (5, 1)}),
    "dripping": Fault(dripping, "too slow", times={"DEADLINE": 1}),
    "dripping headers": Fault(dripping_headers, "too slow", times={"DEADLINE": 1}),
    "endless": wrong(endless, r"received \d+,\d+ bytes"),
    "hanging up": Fault(lambda *_: None, "closed connection"),
}
each_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


@pytest.fixture(autouse=True)
def _no_proxy_and_short_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setattr(download, "DEADLINE", 30)  # so that a fault not recognised ends a test


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer | Fault], Server]]:
    """A function that starts a server; for a fault, waits become shorter, too. All end at last."""
    servers = []

    def start(what: Answer | Fault) -> Server:
        if isinstance(what, Fault):
            for name, value in what.times.items():
                monkeypatch.setattr(download, name, value)
            what = what.answer
        servers.append(Server(what))
        if what:
            servers[-1].server_activate()
            run_forever = servers[-1].serve_forever
            threading.Thread(target=run_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.closing.set()
        if server.answer:
            server.shutdown()
        server.server_close()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with the four files of another dataset."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, content in OLD.items():
        (folder / name).write_bytes(content)
    return folder


def tiny(*mirrors: str, **changes) -> catalogue.Entry:
    """MNIST's entry, as if these were its files and mirrors."""
    files = {
        name: catalogue.File(size=SIZE, sha256=hashlib.sha256(body).hexdigest())
        for name, body in GENUINE.items()
    }
    changes = {"files": files, "mirrors": mirrors, "disputed": ()} | changes
    return catalogue.find("mnist").model_copy(update=changes)


def fetch(raw: Path, *mirrors: str, mirror: str | None = None, **changes) -> DatasetInfo:
    entry = tiny(*mirrors, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "find", lambda _: entry)
        return download.download("mnist", raw, mirror)


@pytest.mark.parametrize("answer", GOOD.values(), ids=GOOD)
def test_files_arrive_whole_and_readable_however_a_good_server_sends_them(answer, serve, raw):
    fetch(raw, serve(answer).url)
    assert contents(raw) == GENUINE
    assert {(raw / name).stat().st_mode & 0o777 for name in NAMES} == {0o644}


@each_fault
@pytest.mark.parametrize("position", [0, 2])
def test_fault_in_any_position_of_three_sources(position, fault, serve, raw):
    bad = [serve(status(410)) for _ in range(position)]
    faulty = serve(fault)
    good = [serve(whole) for _ in range(2 - position)]
    sources = [server.url for server in (*bad, faulty, *good)]
    begin = time.monotonic()
    if good:
        fetch(raw, *sources)
        assert contents(raw) == GENUINE
        assert good[0].requested == list(NAMES)
    else:
        with pytest.raises(UserError) as caught:
            fetch(raw, *sources)
        message = str(caught.value)
        assert message.startswith(f"{NAMES[0]}: ")
        assert re.search(f"^ *{faulty.url}: .*({fault.cause})", message, re.MULTILINE), message
        assert re.findall("^ *(http.*?): ", message, re.MULTILINE) == sources
        for way_on in ("try again later", "MNIST_MIRROR", "download.dataset=digits"):
            assert way_on in message
        # tools/run.py tells unreachable sources from wrong files.
        assert isinstance(caught.value, NoSourceError) != bool(fault.wrong_file)
        assert contents(raw) == OLD
    for server in (*bad, faulty):
        assert set(server.requested) <= {NAMES[0]}, "asked again for other files"
    assert time.monotonic() - begin < 20, "less than any fault that would go on"


@each_fault
def test_a_mirror_that_somebody_named_must_deliver(fault, serve, raw):
    """Files of another dataset under the same names are no fault: other sources follow."""
    mirror, other = serve(fault).url, serve(whole)
    if fault.wrong_file:
        fetch(raw, other.url, mirror=mirror)
        assert contents(raw) == GENUINE
        return
    with pytest.raises(UserError) as caught:
        fetch(raw, other.url, mirror=mirror)
    assert re.match(f"MNIST_MIRROR={mirror}: {NAMES[0]}: .*({fault.cause})", str(caught.value))
    assert "unset it" in str(caught.value)
    assert not isinstance(caught.value, NoSourceError), "which would be no reason to use digits"
    assert other.requested == []
    assert contents(raw) == OLD


RETRIES = download.RETRIES


@pytest.mark.parametrize("fault", ["503", "cut off", "hanging up", "truncated"])
def test_a_source_is_tried_again(fault, serve, raw, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", min(RETRIES, 1))  # further ones take seconds

    def answer(handler: Handler, body: bytes) -> None:
        first = len(handler.server.requested) == 1
        (FAULTS[fault].answer if first else whole)(handler, body)

    server = serve(answer)
    fetch(raw, server.url)
    assert server.requested == [NAMES[0], *NAMES]


@pytest.mark.parametrize("kind", ["folder", "url", "empty"])
def test_mnist_mirror_comes_before_the_catalogue_unless_it_is_empty(
    kind, serve, raw, workspace, monkeypatch
):
    mirror, catalogues = serve(whole), serve(whole)
    for name, body in GENUINE.items():
        (raw / name).write_bytes(body)
    value = {"folder": str(raw), "url": mirror.url.rstrip("/"), "empty": ""}[kind]
    monkeypatch.setenv("MNIST_MIRROR", value)
    change_params(workspace, download__dataset="mnist")
    entry = tiny(catalogues.url)
    monkeypatch.setattr(catalogue, "find", lambda _: entry)
    download.main()
    assert contents(workspace / "data/raw", "dataset.json") == GENUINE
    assert catalogues.requested == (list(NAMES) if kind == "empty" else [])
    assert mirror.requested == (list(NAMES) if kind == "url" else [])


def test_incomplete_fetch_leaves_the_old_files_and_is_continued_by_the_next(serve, raw):
    def all_but_one(handler: Handler, body: bytes) -> None:
        (status(404) if handler.path.endswith(TEST_IMAGES) else whole)(handler, body)

    with pytest.raises(NoSourceError, match=TEST_IMAGES):
        fetch(raw, serve(all_but_one).url)
    assert contents(raw) == OLD
    (download.KEPT / "mnist" / NAMES[1]).write_bytes(b"damaged since")
    server = serve(whole)
    fetch(raw, server.url)
    assert server.requested == [NAMES[1], *NAMES[2:]]
    assert contents(raw) == GENUINE
    fetch(raw, server.url)
    assert len(server.requested) == 3, "files that are there already were downloaded again"


def test_what_is_known_of_a_dataset_goes_with_its_files(serve, raw):
    info = fetch(raw, serve(whole).url, disputed=(1,))
    assert (info.name, info.shape, info.images) == ("mnist", (28, 28, 1), {"train": 3, "test": 2})
    assert info.classes == tuple("0123456789")
    with pytest.raises(
        UserError, match="mnist.disputed: expected numbers of the 2 test images, .* 2"
    ):
        fetch(raw, serve(whole).url, disputed=(1, 2))


def test_digits_are_made_offline_and_always_the_same_bytes(workspace, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", None)
    download.main()
    first = contents(workspace / "data/raw")
    assert set(first) == {*NAMES, "dataset.json"}
    for split, count in data.load_info(workspace / "data/raw").images.items():
        assert idx.read_shape(workspace / "data/raw" / idx.images_file(split)) == (count, 28, 28)
    monkeypatch.setattr(time, "time", lambda: 1e9)  # gzip would note the time
    download.main()
    assert contents(workspace / "data/raw") == first


@pytest.mark.skipif(not MIRROR, reason="needs MNIST: set MNIST_MIRROR to a URL or a folder with it")
def test_real_mnist_has_the_digests_that_others_publish(workspace, monkeypatch):
    change_params(workspace, download__dataset="mnist")
    monkeypatch.setenv("MNIST_MIRROR", MIRROR)
    download.main()
    found = contents(workspace / "data/raw", "dataset.json")
    assert {name: hashlib.md5(content).hexdigest() for name, content in found.items()} == {
        # torchvision.datasets.MNIST
        NAMES[0]: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        NAMES[1]: "d53e105ee54ea40749a09fcbcd1e9432",
        NAMES[2]: "9fb629c4189551a2d022fa330f9573f3",
        NAMES[3]: "ec29112dd5afa0611ce80d1b7f02629c",
    }


@pytest.mark.parametrize("mirror", ["nonsense://host/", "http://", "http://[::1/", "no/folder"])
def test_an_address_or_folder_that_cannot_be_is_told(mirror, raw):
    with pytest.raises(UserError, match=re.escape(f"MNIST_MIRROR={mirror}: ")):
        fetch(raw, mirror=mirror)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("classes: [a, b]", "classes: [0, 1]", "my.classes.0: .*found 0 .*quotes"),
        ("classes: [a, b]", "classes: [yes, no]", "my.classes.0: .*found True .*quotes"),
        ("classes: [a, b]", "classes: [a, a]", "my.classes: expected different names"),
        ("classes: [a, b]", "classes: [a, ~]", "my.classes.1: .*found None"),
        ("classes: [a, b]", 'classes: [a, " "]', "my.classes.1: "),
        ("classes: [a, b]", "classes: abc", "my.classes: .*valid list, found 'abc'"),
        ("classes: [a, b]", "classes: *a", "not valid YAML: .*alias"),
        ("classes: [a, b]", "classes: !!python/tuple [a, b]", "not valid YAML"),
        ("  classes:", "\tclasses:", "not valid YAML: .*line 4"),
        ("  licence: l\n", "", "my.licence: missing"),
        ("licence: l", "license: l", "my.license: unknown key"),
        ("licence: l", "subject: l", "'subject' twice.*line 3"),
        ("mirrors: [x]", "mirrors: http://x", "my.mirrors: .*valid list"),
        ("mirrors: [x]", "mirrors: ['']", "my.mirrors.0: "),
        ("files:", "pictures:", "my.files: missing"),
        ("t10k-labels", "test-labels", "files: expected t10k-images.*found"),
        ("size: 3", "size: 3 kB", "train-images-idx3-ubyte.gz.size: .*integer"),
        ("sha256: ab", "sha256: AB", "train-images-idx3-ubyte.gz.sha256: "),
        ("mirrors: [x]", "mirrors: [x]\n  disputed: [1.5]", "my.disputed.0: "),
        ("my:", "2024:", "expected a name in quotes, found 2024"),
        ("my:", "null:", "expected a name in quotes, found None"),
        ("my:", "my: {}\nmy:", "'my' twice"),
        ("my:", "- my:", "catalogue.yaml|expected"),
    ],
)
def test_a_slip_in_the_catalogue_is_told_in_a_line(old, new, message, tmp_path, monkeypatch):
    lines = [
        "my:",
        "  subject: s",
        "  licence: l",
        "  classes: [a, b]",
        "  mirrors: [x]",
        "  files:",
    ]
    lines += [f"    {name}: {{size: 3, sha256: {'ab' * 32}}}" for name in NAMES]
    text = "\n".join(lines)
    monkeypatch.setattr(catalogue, "CATALOGUE", path := tmp_path / "catalogue.yaml")
    path.write_text(text)
    assert catalogue.find("my").classes == ("a", "b")
    assert text != (changed := text.replace(old, new, 1))
    path.write_text(changed)
    with pytest.raises(UserError, match=message) as caught:
        [catalogue.find(name) for name in catalogue.names()]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_catalogue_entry_is_complete(name):
    entry = catalogue.find(name)
    assert set(entry.files) == set(NAMES)
    assert len({file.sha256 for file in entry.files.values()}) == 4
    assert len(set(entry.mirrors)) >= 2
    assert len(set(entry.classes)) == len(entry.classes) == 10
