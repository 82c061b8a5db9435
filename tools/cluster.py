"""Run a command as several workers on this machine, as a cluster runs it on several hosts.

    python -m tools.cluster --workers 2 python -m stages.train --seed 0

Each worker is a process with its own TF_CONFIG; when one fails, the others are ended. It is no
faster than one process, since all share the same cores.
"""

import argparse
import json
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor, as_completed

from stages.base.stage import UserError, arguments, run_stage


def configurations(workers: int) -> list[str]:
    """The TF_CONFIG of each worker, on free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]}
    for each in sockets:
        each.close()
    tasks = ({"type": "worker", "index": number} for number in range(workers))
    return [json.dumps({"cluster": cluster, "task": task}) for task in tasks]


def follow(number: int, worker: subprocess.Popen) -> int:
    """Show what a worker prints; returns its exit code."""
    for line in worker.stdout:
        print(f"worker {number} | {line}", end="", flush=True)
    return worker.wait()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--workers", type=int, required=True, help="how many, 1 to 64")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what each of them runs")
    options = parser.parse_args()
    if not (1 <= options.workers <= 64 and options.command):
        parser.error("expected 1 to 64 workers and a command")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    processes = [
        subprocess.Popen(options.command, env=os.environ | {"TF_CONFIG": config}, **pipes)
        for config in configurations(options.workers)
    ]
    with ThreadPoolExecutor(options.workers) as pool:
        try:
            for ended in as_completed(pool.submit(follow, *pair) for pair in enumerate(processes)):
                if ended.result():
                    break
        finally:
            for process in processes:
                process.terminate()
    if any(codes := [process.wait() for process in processes]):
        raise UserError(f"the workers ended with the exit codes {codes}: see above")


if __name__ == "__main__":
    run_stage(main)
