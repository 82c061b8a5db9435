"""Killed at any moment, the pipeline loses nothing: the next `dvc repro` ends as if undisturbed.

Before each run, stale notes go, as with `make`, and what else docs/reliability.md says that a kill
may leave half-written of DVC's own files.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import STAGES, contents, copy_project, dvc, lock_entry, run, run_stage
from dvc.exceptions import DvcException
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils import strictyaml

import tools.recover

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="kills a POSIX process group"),
]
# Chains of kills; more of them find what happens more seldom.
CHAINS = int(os.environ.get("KILL_CHAINS", "1"))
KILLS = 2  # of each stage, and of DVC before its first stage, per chain
KEPT = (".gitignore", ".dvcignore", "params.yaml", "dvc.yaml", ".dvc/config", ".dvc/.gitignore")
UNSEEN = (".git", "cache", "tmp", "__pycache__")  # what is Git's, DVC's and Python's own
COPY = re.compile(r".*\.[\w-]{22}\.tmp")  # what DVC calls a copy of an output until it is whole


def recover(project: Path) -> None:
    """What `make` does first, and what docs/reliability.md says of DVC's other files."""
    time.sleep(1.1)  # a note that is younger may be of a running command
    run_stage(tools.recover.main, project)
    try:
        strictyaml.load(str(project / "dvc.lock"), COMPILED_LOCKFILE_SCHEMA)
    except FileNotFoundError:
        pass
    except DvcException:
        (project / "dvc.lock").unlink()  # here none is committed


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
    def stages(self) -> list[str]:
        """Those that have begun, in order."""
        return re.findall(r"^Running stage '(.+)'", self.output, re.MULTILINE)

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
            time.sleep(0.03)
        return self.work()

    def send(self, number: int) -> None:
        """Send a signal to all processes of the group, and wait until they have ended."""
        os.killpg(self.process.pid, number)
        self.process.wait(60)
        with suppress(ProcessLookupError):
            for _ in range(6000):
                os.killpg(self.process.pid, 0)
                time.sleep(0.03)
            raise AssertionError("a process of the group lives on")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict[str | None, float]]:
    """What an undisturbed run leaves, and the processor seconds up to each stage's end."""
    project = copy_project(tmp_path_factory.mktemp("undisturbed") / "project")
    repro = Repro(project)
    times = {None: 0.0}
    while repro.process.poll() is None:
        work = repro.work()
        for stage in repro.stages:
            times.setdefault(stage, work)
        time.sleep(0.03)
    assert repro.process.returncode == 0, repro.output
    ends = [*list(times.values())[1:], work]
    return contents(project, *UNSEEN), {
        stage: end - begin for (stage, begin), end in zip(times.items(), ends, strict=True)
    }


def end_undisturbed(project: Path, expected: dict[str, bytes]) -> None:
    """One run finishes by itself, and files, cache and Git's view of them are as they should be."""
    recover(project)
    dvc(project, "repro")
    for path in filter(COPY.fullmatch, map(str, project.rglob("*.tmp"))):
        os.remove(path)  # Git and DVC ignore them
    found = contents(project, *UNSEEN)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert "up to date" in dvc(project, "status")
    run("git", "clean", "-fdXq", "--", "data", "models", cwd=project)  # only what Git ignores
    dvc(project, "checkout")
    assert contents(project, *UNSEEN) == expected, "DVC's cache holds something else"


def interrupt(
    project: Path, expected: dict, stage: str | None, seconds: float, number: int
) -> Repro | None:
    """Start a run, send it a signal `seconds` of processor time after a stage has begun.

    What is not an output stays as it was. Returns the run, None if it had ended by then.
    """
    recover(project)
    repro = Repro(project)
    moment = repro.wait_for(stage) + seconds
    while repro.process.poll() is None and repro.work() < moment:
        time.sleep(0.03)
    if ended := repro.process.poll() is not None:
        assert repro.process.returncode == 0, repro.output
    else:
        repro.send(number)
    for name in KEPT:
        assert (project / name).read_bytes() == expected[name], name
    return None if ended else repro


@pytest.mark.parametrize("seed", range(CHAINS))
def test_after_any_kills_a_run_ends_with_the_same_bytes(seed, undisturbed, tmp_path):
    expected, durations = undisturbed
    project = copy_project(tmp_path / "project")
    draw = random.Random(seed)
    for stage, duration in durations.items():
        for _ in range(KILLS):
            moment = draw.uniform(0, 0.95 * duration)
            interrupt(project, expected, stage, moment, signal.SIGKILL)
    end_undisturbed(project, expected)


def test_ctrl_c_ends_with_a_clean_message_and_loses_nothing(undisturbed, tmp_path):
    expected, durations = undisturbed
    project = copy_project(tmp_path / "project")
    for stage, duration in durations.items():
        for share in (0.3, 0.8):
            repro = interrupt(project, expected, stage, share * duration, signal.SIGINT)
            # DVC heeds Ctrl-C; Python, when it starts, has its own words.
            said = repro.output if repro and repro.stages and repro.process.returncode else ""
            if said and not re.search("dvc push|pipelines are up to date", said):  # its last words
                assert not re.search(r'File ".*(stages|tools|site-packages)/', said), said
                assert re.search("interrupted|ERROR: ", said), said
    end_undisturbed(project, expected)


LIMITED = """
import resource, runpy, signal, sys
_, size, action, module, *sys.argv[1:] = sys.argv
signal.signal(signal.SIGXFSZ, signal.Handlers[action])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_cannot_write_all_leaves_old_outputs(stage, folder):
    """Beyond half of its largest output's size it is killed, or refused as on a full disk."""
    entry, outs = lock_entry(folder, stage)
    expected = {path: path.read_bytes() for path in outs}
    size = max(map(len, expected.values())) // 2
    for path in outs:
        path.unlink()  # DVC may have linked it to its cache
        path.write_text("an earlier result")
    module, *arguments = entry["cmd"].removeprefix("python -m ").split()
    for action in ("SIG_DFL", "SIG_IGN"):
        command = ("python", "-B", "-c", LIMITED, str(size), action, module, *arguments)
        ended = run(*command, cwd=folder, check=False, PYTHONPATH=str(folder))
        if action == "SIG_DFL":
            assert ended.returncode == -signal.SIGXFSZ, ended.stdout + ended.stderr
        else:
            assert ended.returncode == 1, ended.stdout + ended.stderr
            assert re.fullmatch(
                r"error: .+: File too large; no output is half-written\n", ended.stderr
            )
            assert not list(folder.rglob("*.tmp"))
        others = [path for path in outs if path.parent.name != "curves"]  # they grow in training
        assert [path for path in others if path.read_bytes() != b"an earlier result"] == []
    run("python", "-m", module, *arguments, cwd=folder, PYTHONPATH=str(folder))
    assert {path: path.read_bytes() for path in outs} == expected
