"""Many seeds, many hosts: each trains some and pushes them, one pulls all and trains nothing.

The hosts are clones on this machine; the DVC remote between them is a real OpenSSH server, or a
real server of the S3 protocol (moto).
"""

import contextlib
import getpass
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import NOTES, change_params, commit, contents, copy_project, run, stages_run

pytestmark = pytest.mark.slow
SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
SSHD_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PidFile none
ForceCommand internal-sftp
Subsystem sftp internal-sftp
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Server:
    """A process that serves a DVC remote, and what .dvc/config.local says of it."""

    command: list[str | Path]
    remote: str

    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()

    def start(self) -> None:
        with open(self.folder / "log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        for _ in range(300):
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", self.port)).close()
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text(encoding="utf-8"))

    def kill(self) -> None:
        parent = psutil.Process(self.process.pid)
        for process in [*parent.children(recursive=True), parent]:
            process.kill()
        self.process.wait()

    vanish = kill


class Ssh(Server):
    """OpenSSH's server with keys of its own, which only this user can log in to."""

    needs = SSHD and shutil.which("ssh-keygen") and find_spec("dvc_ssh")

    def __init__(self, folder: Path):
        super().__init__(folder)
        for name in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name, cwd=folder)
        config = SSHD_CONFIG.format(port=self.port, folder=folder)
        (folder / "config").write_text(config, encoding="utf-8")
        if os.getuid() == 0:  # without it, sshd of root does not start
            Path("/run/sshd").mkdir(exist_ok=True)
        self.command = [SSHD, "-D", "-e", "-f", folder / "config"]
        self.remote = f"url = ssh://127.0.0.1{folder}/store\nport = {{port}}\n"
        self.remote += f"user = {getpass.getuser()}\nkeyfile = {folder}/user\n"
        self.start()


class S3(Server):
    """moto's server, with a bucket. It keeps all in memory: what vanishes is the line to it."""

    needs = find_spec("dvc_s3") and find_spec("moto") and find_spec("flask")
    command = [sys.executable, "-c", "import sys; from moto.server import main; main(sys.argv[1:])"]
    remote = "url = s3://digits/store\nendpointurl = http://127.0.0.1:{port}\n"
    remote += "access_key_id = test\nsecret_access_key = test\nregion = us-east-1\n"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.command = [*self.command, "-H", "127.0.0.1", "-p", str(self.port)]
        self.start()
        bucket = f"http://127.0.0.1:{self.port}/digits"
        urllib.request.urlopen(urllib.request.Request(bucket, method="PUT")).close()

    def vanish(self) -> None:
        pass


class Line:
    """A port that leads to a server until so many bytes have passed; then the server vanishes."""

    def __init__(self, server: Server, limit: int):
        self.server, self.left, self.ends = server, limit, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self.listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.server.port))
                self.ends += [near, far]
                for pair in ((near, far), (far, near)):
                    pair[1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self.copy, args=pair, daemon=True).start()

    def copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self.lock:
                    if self.left > 0:
                        self.left -= len(data)
                        if self.left <= 0:
                            self.cut()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        self.server.vanish()
        for each in [self.listener, *self.ends]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def needs(kind: type[Server], what: str):
    missing = pytest.mark.skipif(not kind.needs, reason=f"needs {what}: requirements-scaling.txt")
    return pytest.param(kind, marks=missing, id=kind.__name__.lower())


@pytest.fixture(params=[needs(Ssh, "sshd and dvc-ssh"), needs(S3, "dvc-s3 and moto[server]")])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    started = request.param(tmp_path / "server")
    yield started
    started.kill()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Clones of one project: in `fresh` nothing has run, in `all` all, else some trainings."""
    folder = tmp_path_factory.mktemp("hosts")
    project = copy_project(folder / "project")
    change_params(project, seeds=[0, 1, 2, 3])
    commit(project, "four seeds")
    targets = {"fresh": None, "first": "train@0 train@1", "second": "train@2 train@3", "all": ""}
    for name, target in targets.items():
        run("git", "clone", "-q", str(project), name, cwd=folder)
        if target is not None:
            run("dvc", "repro", *target.split(), cwd=folder / name)
    return {name: folder / name for name in targets}


def host(source: Path, target: Path, server: Server) -> Path:
    """A copy of a clone, to run in, with the remote."""
    shutil.copytree(source, target, symlinks=True)
    connect(target, server, server.port)
    return target


def connect(host: Path, server: Server, port: int) -> None:
    """Set the remote in .dvc/config.local, at this port."""
    text = "[core]\nremote = shared\n['remote \"shared\"']\n" + server.remote.format(port=port)
    (host / ".dvc/config.local").write_text(text, encoding="utf-8")


def collect(host: Path, check: bool = True) -> subprocess.CompletedProcess:
    """Fetch what others trained; with this shell no stage can start."""
    return run("dvc", "repro", "--pull", "train", cwd=host, check=check, SHELL="/bin/false")


def lock(host: Path) -> dict:
    """The entries of dvc.lock; their order is that in which the stages ran."""
    return yaml.safe_load((host / "dvc.lock").read_text(encoding="utf-8"))


def assert_clear(broken: subprocess.CompletedProcess) -> None:
    assert broken.returncode
    assert "ERROR: " in broken.stderr
    assert "Traceback" not in broken.stdout + broken.stderr


def assert_whole(objects: Path) -> None:
    """Each file of a cache or a remote has the content that its name promises."""
    for path in objects.rglob("*"):
        if path.is_file() and path.suffix != ".tmp":
            digest = hashlib.md5(path.read_bytes()).hexdigest()
            assert path.parent.name + path.stem == digest


def test_each_host_trains_some_seeds(server: Server, hosts: dict[str, Path], tmp_path: Path):
    for name in ("first", "second"):
        run("dvc", "push", "--run-cache", cwd=host(hosts[name], tmp_path / name, server))
    last = host(hosts["fresh"], tmp_path / "last", server)
    assert not stages_run(collect(last))
    assert stages_run(run("dvc", "repro", cwd=last)) == {
        "package",
        "evaluate",
        "robustness",
    }
    assert contents(last, *NOTES) == contents(hosts["all"], *NOTES)
    assert lock(last) == lock(hosts["all"])
    assert "up to date" in run("dvc", "status", cwd=last).stdout


@pytest.mark.parametrize("limit", [30_000, 2_000_000])  # bytes: within the run cache, within data
def test_a_remote_that_vanishes(server: Server, hosts: dict[str, Path], limit: int, tmp_path: Path):
    first = host(hosts["first"], tmp_path / "first", server)
    connect(first, server, Line(server, limit).port)
    assert_clear(run("dvc", "push", "--run-cache", cwd=first, check=False))
    assert_whole(server.folder / "store/files")

    again(server)
    for each in (first, host(hosts["second"], tmp_path / "second", server)):
        connect(each, server, server.port)
        run("dvc", "push", "--run-cache", cwd=each)

    last = host(hosts["fresh"], tmp_path / "last", server)
    connect(last, server, Line(server, limit).port)
    assert_clear(collect(last, check=False))
    assert_whole(last / ".dvc/cache/files")

    again(server)
    connect(last, server, server.port)
    assert not stages_run(collect(last))
    assert contents(last / "models/trained") == contents(hosts["all"] / "models/trained")
    assert "up to date" in run("dvc", "status", "train", cwd=last).stdout


def again(server: Server) -> None:
    """Start the server if it has vanished."""
    if server.process.poll() is not None:
        server.start()
