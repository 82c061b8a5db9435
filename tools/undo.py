"""Discard an experiment: back to the committed params, results and network.

    python -m tools.undo

Asks nothing and loses nothing: what differs from the commit is kept as a DVC experiment first. Code
is not touched.
"""

import re
import subprocess
import sys

from stages.base.stage import UserError, run_stage

PATHS = ("params.yaml", "dvc.lock", "metrics", "plots")


def call(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def dvc(*arguments: str) -> subprocess.CompletedProcess:
    return call(sys.executable, "-m", "dvc", *arguments)


def main() -> None:
    changed = call("git", "status", "--porcelain", "--", *PATHS)
    if changed.returncode:
        raise UserError(f"git: {changed.stderr.strip()}")
    if changed.stdout:
        saved = dvc("exp", "save", "--force", "--include-untracked", "metrics")
        name = re.search(r"saved as: (\S+)", saved.stdout)
        if not name:
            reason = saved.stderr.strip().splitlines()[-1:]
            raise UserError(
                f"nothing was changed, since DVC could not keep the experiment: {reason}"
            )
        print(f"Kept what you had as {name[1]}; `dvc exp apply {name[1]}` brings it back.")
        call("git", "restore", "--staged", "--worktree", "--", *PATHS)
        call("git", "clean", "--quiet", "--force", "-d", "--", "metrics", "plots")
        print("Restored params.yaml, dvc.lock, metrics and plots as committed.")
    restored = dvc("checkout", "--force")
    if restored.returncode:
        raise UserError(
            "DVC has no copy of the committed run's data and network: it ran on another machine. "
            "`make` computes them again (or `dvc pull`, if the project has a remote)"
        )
    print("Data and network are those of the committed run.")


if __name__ == "__main__":
    run_stage(main)
