"""Killed at any moment, the pipeline loses nothing: the next `dvc repro` ends as if undisturbed.

Chains of kills: `dvc repro` is killed, started again, killed again, in every stage and in DVC's own
work between stages; at the end of a chain one run may finish, and all that it leaves is compared,
byte for byte, with an undisturbed run. Moments are drawn at random within a stage's duration.
Before each run `tools.recover` clears what the last one left, as `make` does.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import contents, copy_project, lock_entry, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="kills a POSIX process group"),
]
# Four chains make some 160 kills, in a quarter of an hour or more.
CHAINS = int(os.environ.get("KILL_CHAINS", "2"))
KILLS = 5  # of each stage, and of DVC before its first stage, per chain
STARTS = re.compile(r"^Running stage '(.+)'", re.MULTILINE)
KEPT = (".gitignore", ".dvcignore", "params.yaml", "dvc.yaml", ".dvc/config", ".dvc/.gitignore")


UNSEEN = (".git", "cache", "tmp", "__pycache__")  # what is Git's, DVC's and Python's own


def recover(project: Path) -> None:
    """What `make` does first; a dvc.lock that it cannot load is not committed here, and goes."""
    if run("python", "-m", "tools.recover", cwd=project, check=False).returncode:
        (project / "dvc.lock").unlink()


class Repro:
    """A `dvc repro` in a process group of its own, whose output can be watched."""

    def __init__(self, project: Path) -> None:
        self.log = project.parent / "log"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro"],
                cwd=project,
                env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Not ignored, though these tests may run in the background of a shell.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def running(self) -> str:
        """The stage that ran last."""
        return (self.stages or ["DVC's start"])[-1]

    @property
    def stages(self) -> list[str]:
        """Those that have begun, in order."""
        return STARTS.findall(self.output)

    def work(self) -> float:
        """Processor seconds of all its processes so far: a clock that other load does not slow."""
        total = 0.0
        with suppress(psutil.Error):
            root = psutil.Process(self.process.pid)
            for process in [root, *root.children(recursive=True)]:
                with suppress(psutil.Error):
                    total += sum(process.cpu_times()[:4])  # its own and its ended children's
        return total

    def wait_for(self, stage: str | None) -> float:
        """Wait until DVC's output names a stage, run or skipped, or ends; return the work done."""
        while self.process.poll() is None and stage and f"tage '{stage}'" not in self.output:
            time.sleep(0.005)
        return self.work()

    def send(self, number: int) -> None:
        """Send a signal to all processes of the group, and wait until they have ended."""
        os.killpg(self.process.pid, number)
        self.process.wait(60)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.01)
        raise AssertionError("a process of the group lives on")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a project is made, and the pipeline runs in it once."""
    return tmp_path_factory.mktemp("undisturbed") / "project"


@pytest.fixture(scope="module")
def undisturbed(finished: Path) -> tuple[dict, dict[str | None, float]]:
    """What an undisturbed run leaves, and the processor seconds up to each stage's end."""
    project = copy_project(finished)
    repro = Repro(project)
    times = {None: 0.0}
    while repro.process.poll() is None:
        work = repro.work()
        for stage in repro.stages:
            times.setdefault(stage, work)
        time.sleep(0.01)
    assert repro.process.returncode == 0, repro.output
    ends = [*list(times.values())[1:], work]
    return contents(project, *UNSEEN), {
        stage: end - begin for (stage, begin), end in zip(times.items(), ends, strict=True)
    }


def end_undisturbed(project: Path, expected: dict[str, bytes]) -> None:
    """One run finishes by itself, and files, cache and Git's view of them are as they should be."""
    recover(project)
    run("dvc", "repro", cwd=project)
    found = contents(project, *UNSEEN)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert "up to date" in run("dvc", "status", cwd=project).stdout
    run("git", "clean", "-fdXq", "--", "data", "models", cwd=project)  # only what Git ignores
    run("dvc", "checkout", cwd=project)
    assert contents(project, *UNSEEN) == expected, "DVC's cache holds something else"


def interrupt(project: Path, stage: str | None, seconds: float, number: int) -> Iterator[Repro]:
    """Start a run, send it a signal `seconds` of processor time after a stage has begun.

    Yields the run, or nothing if it had ended by then.
    """
    recover(project)
    repro = Repro(project)
    moment = repro.wait_for(stage) + seconds
    while repro.process.poll() is None and repro.work() < moment:
        time.sleep(0.005)
    if repro.process.poll() is None:
        repro.send(number)
        yield repro
    else:
        assert repro.process.returncode == 0, repro.output


@pytest.mark.parametrize("seed", range(CHAINS))
def test_after_any_kills_a_run_ends_with_the_same_bytes(
    seed: int,
    undisturbed: tuple[dict, dict],
    tmp_path: Path,
    record_property: Callable[[str, int], None],
):
    expected, durations = undisturbed
    project = copy_project(tmp_path / "project")
    draw = random.Random(seed)
    for stage, duration in durations.items():
        for _ in range(KILLS):
            moment = draw.uniform(0, 0.95 * duration)
            for repro in interrupt(project, stage, moment, signal.SIGKILL):
                record_property(f"kills survived, {repro.running}", 1)
                record_property("kills survived, in all", 1)
            for name in KEPT:
                assert (project / name).read_bytes() == expected[name], name
    end_undisturbed(project, expected)


def test_ctrl_c_ends_with_a_clean_message_and_loses_nothing(
    undisturbed: tuple[dict, dict], tmp_path: Path, record_property: Callable[[str, int], None]
):
    expected, durations = undisturbed
    project = copy_project(tmp_path / "project")
    for stage, duration in durations.items():
        for share in (0.3, 0.6, 0.9):
            for repro in interrupt(project, stage, share * duration, signal.SIGINT):
                output = repro.output
                ended = re.search("dvc push|pipelines are up to date", output)  # its last words
                if repro.stages and repro.process.returncode and not ended:  # DVC heeds Ctrl-C
                    ours = re.search(r'File ".*(stages|tools)/', output)  # Python's start may show
                    assert not ours, output
                    assert re.search("interrupted|ERROR: ", output), output
                record_property(f"Ctrl-C survived, {repro.running}", 1)
            for name in KEPT:
                assert (project / name).read_bytes() == expected[name], name
    end_undisturbed(project, expected)


KILLED_AT_SIZE = """
import resource, runpy, signal, sys
_, size, module, *sys.argv[1:] = sys.argv
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "stage",
    ["environment", "download", "preprocess", "page", "train", "package", "evaluate", "robustness"],
)
def test_a_stage_killed_while_it_writes_leaves_old_outputs(
    stage: str,
    finished: Path,
    undisturbed: tuple[dict, dict],
    tmp_path: Path,
    record_property: Callable[[str, int], None],
):
    """The system kills it at the first byte beyond a size: half of its largest output's."""
    project = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    entry, outs = lock_entry(project, stage)
    expected = {path: path.read_bytes() for path in outs}
    size = max(map(len, expected.values())) // 2
    for path in outs:
        path.unlink()  # DVC may have linked it to its cache
        path.write_text("an earlier result")
    module, *arguments = entry["cmd"].removeprefix("python -m ").split()
    killed = run(
        *("python", "-B", "-c", KILLED_AT_SIZE, str(size), module, *arguments),
        cwd=project,
        check=False,
        PYTHONPATH=str(project),
    )
    assert killed.returncode == -signal.SIGXFSZ, killed.stdout + killed.stderr
    others = [path for path in outs if path.name != "curves.csv"]  # these grow in training
    assert [path for path in others if path.read_bytes() != b"an earlier result"] == []
    run("python", "-m", module, *arguments, cwd=project, PYTHONPATH=str(project))
    assert {path: path.read_bytes() for path in outs} == expected
    assert not list(project.rglob("*.tmp"))
    record_property("kills in the middle of a write survived", 1)
