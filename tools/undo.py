"""Discard an experiment: back to the committed params, results, data and network.

    python -m tools.undo

Asks nothing and loses nothing that cannot be computed again: if params.yaml, dvc.lock, metrics or
plots differ from the commit, they are first kept as a DVC experiment, together with the code as it
is. In the project's folder no code is changed.

The experiment is written with Git's commands, to where DVC keeps its own. `dvc exp save` (3.67)
fails after an interrupted run; and if params.yaml has been edited since the run, it notes the old
outputs as those of the new params, which DVC then takes for computed.
"""

import re
import subprocess
import sys
from pathlib import Path

from stages.base.stage import UserError, run_stage
from tools.recover import is_running

PATHS = ("params.yaml", "dvc.lock", "metrics", "plots")
APPS = "apps/dvc.lock"
GIT = ("git", "-c", "core.quotePath=false", "-c", "user.name=undo", "-c", "user.email=undo@local")
MISSING = "DVC has no copy of the committed run: it ran on another machine. `make` runs it again"


def call(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, encoding="utf-8")


def git(*arguments: str) -> list[str]:
    """The lines that a Git command prints. Raises UserError with Git's message if it fails."""
    result = call(*GIT, *arguments)
    if result.returncode:
        raise UserError(f"git {arguments[0]}: {result.stderr.splitlines()[0]}")
    return result.stdout.splitlines()


def keep(changes: str) -> str:
    """Keep the files of a commit as an experiment, unless there is the same; return its name."""
    head, tree = git("rev-parse", "HEAD", f"{changes}^{{tree}}")
    place = f"refs/exps/{head[:2]}/{head[2:]}"  # where DVC looks for experiments on HEAD
    for known in git("for-each-ref", "--format=%(tree) %(refname:lstrip=4)", place):
        if known.startswith(tree):
            return known.split()[1]
    commit = git("commit-tree", tree, "-p", head, "-m", "Kept by make undo")[0]
    git("update-ref", f"{place}/undone-{commit[:7]}", commit)
    return f"undone-{commit[:7]}"


def main() -> None:
    if is_running():  # it would note the restored params with what it computed from others
        raise UserError("DVC is at work in this project: stop it or wait, then try again")
    lock = Path("dvc.lock")
    text = lock.read_text("utf-8", "replace") if lock.is_file() else ""
    outputs = re.findall(r"path: ((?:metrics|plots)\S*)", text)
    # Outputs that are not in Git yet: in its index, they are kept and then removed like the rest.
    git("add", "--", *git("ls-files", "-o", "--exclude-standard", "--", "dvc.lock", *outputs))
    changed = git("diff", "--name-only", "HEAD")
    if ours := [path for path in changed if path.split("/")[0] in PATHS or path == APPS]:
        changes = git("stash", "create")[0]  # a commit of all changes; none is undone by it
        print(f"Kept what you had: `dvc exp apply {keep(changes)}` brings it back.")
        git("restore", "--staged", "--worktree", "--source=HEAD", "--", *ours)
    if code := ", ".join(path for path in changed if path not in ours):
        print(f"Left your other edits as they are: {code}.")
    print("params.yaml, dvc.lock, metrics and plots are as committed.")
    checkout = (sys.executable, "-m", "dvc", "checkout", "--force")
    call(*checkout, "--allow-missing")  # all of it, and what is no output any more is removed
    result = call(*checkout, "dvc.yaml")  # of what apps/ makes, a fresh clone may have no copy
    if result.returncode:
        missing = "Checkout failed" in result.stderr
        raise UserError(MISSING if missing else f"dvc checkout: {result.stderr.strip()}")
    print("Data and networks are those of the committed run.")


if __name__ == "__main__":
    run_stage(main)
