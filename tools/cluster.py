"""Train one network with several workers on this machine, as a cluster of hosts would.

    python -m tools.cluster [--workers N] [--seed S]

Each worker is a process of its own, `python -m stages.train`, with a TF_CONFIG that names all of
them on this machine. It shows that it works, and is no faster than one process, since all share the
same cores. The result stays in .dvc/tmp/cluster: models/ and DVC's files are not changed.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
from stages.base.arrays import PROCESSED
from stages.network.settings import folder_of

from stages.base import params
from stages.base.stage import UserError, run_stage
from stages.base.versions import ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(".dvc/tmp/cluster")


def configurations(workers: int) -> list[str]:
    """A TF_CONFIG for each of so many workers, on free ports of this machine."""
    with ExitStack() as sockets:
        opened = [
            sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(workers)
        ]
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in opened]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(workers)
    ]


def prepare(folder: Path) -> None:
    """Make `folder` a project with the same data and params; a backup of a killed run stays.

    Raises:
        UserError: `preprocess` has not run.
    """
    for path in (ENVIRONMENT, PROCESSED):
        if not path.exists():
            raise UserError(f"{path} not found: run `dvc repro preprocess` first")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(params.PARAMS, folder)
    (folder / "data").unlink(missing_ok=True)
    (folder / "data").symlink_to(Path("data").resolve(), target_is_directory=True)


def start(folder: Path, configuration: str, seed: int = 0, *before: str) -> subprocess.Popen:
    """Start the stage `train` in a folder, as a worker if there is a configuration.

    Args:
        folder: with what the stage needs.
        configuration: the worker's TF_CONFIG; may be empty.
        seed: of the network.
        before: of the command, to run it by another one.
    """
    environment = os.environ | {"TF_CONFIG": configuration, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*before, sys.executable, "-m", "stages.train", "--seed", str(seed)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def show(number: int, process: subprocess.Popen) -> None:
    for line in process.stdout:
        print(f"worker {number} | {line}", end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="processes, 2 if not given")
    parser.add_argument("--seed", type=int, default=0, help="of the network")
    options = parser.parse_args()
    if not 1 <= options.workers <= 64:
        raise UserError(f"--workers: expected 1 to 64, found {options.workers}")
    prepare(FOLDER)
    processes = [start(FOLDER, each, options.seed) for each in configurations(options.workers)]
    threads = [threading.Thread(target=show, args=pair) for pair in enumerate(processes)]
    try:
        for thread in threads:
            thread.start()
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
        for thread in threads:
            thread.join()
    if any(codes):
        raise UserError(
            f"the workers ended with the codes {', '.join(map(str, codes))}: see above; "
            "the next start goes on after the last whole epoch"
        )
    folder = FOLDER / folder_of(options.seed)
    print(pd.read_csv(folder / "curves.csv").to_string(index=False))
    print(f"{options.workers} workers trained {folder / 'network.keras'}")


if __name__ == "__main__":
    run_stage(main)
