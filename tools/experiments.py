"""What was tried, what was changed and what came of it: experiments and commits, newest first.

    python -m tools.experiments

Reads Git alone, so it takes no DVC cache and no time. An experiment is a commit where DVC keeps its
own (refs/exps), on top of the commit that was checked out: all of DVC's commands know its name.
"""

import json
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from stages.base.stage import UserError, run_stage
from stages.report.scores import percent

GIT = ("git", "-c", "core.quotePath=false", "-c", "user.name=dvc", "-c", "user.email=dvc@local")
RESULT = ("params.yaml", "dvc.lock", "metrics", "plots")
CODE = ("dvc.yaml", "stages")
COMMITS = 10  # that changed the result are shown, at most
MEASURES = {"accuracy": percent, "corrupt": percent, "val_loss": "{:.4f}".format}


def git(*arguments: str, **environment: str) -> list[str]:
    """The lines that a Git command prints. Raises UserError with Git's message if it fails."""
    command, environment = (*GIT, *arguments), os.environ | environment
    try:
        result = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    except FileNotFoundError:
        raise UserError("no program `git` is found: install Git") from None
    if result.returncode:
        raise UserError(f"git {arguments[0]}: {result.stderr.strip()}")
    return result.stdout.splitlines()


def new_outputs() -> list[str]:
    """Outputs in metrics and plots that Git does not know yet, and dvc.lock if it is new."""
    lock = Path("dvc.lock")
    text = lock.read_text("utf-8", "replace") if lock.is_file() else ""
    outputs = re.findall(r"path: ((?:metrics|plots)\S*)", text)
    return git("ls-files", "-o", "--exclude-standard", "--", "dvc.lock", *outputs)


def keep(name: str) -> str | None:
    """Keep the workspace's code, params and result as an experiment; index and files stay.

    It is written with Git's commands. `dvc exp run` (3.67) leaves Git on no branch when it is
    killed; `dvc exp save` fails after an interrupted run; both keep the same result twice.

    Returns:
        The experiment's name, `name` and a few digits; that of an earlier one with this result, or
        None if this is the committed result.
    """
    head = git("rev-parse", "HEAD")[0]
    with TemporaryDirectory() as folder:
        copy = shutil.copy(git("rev-parse", "--git-path", "index")[0], folder)
        git("add", "-u", GIT_INDEX_FILE=copy)
        git("add", "--", *new_outputs(), GIT_INDEX_FILE=copy)
        tree = git("write-tree", GIT_INDEX_FILE=copy)[0]
    result = git("ls-tree", tree, *RESULT)
    if result == git("ls-tree", head, *RESULT):
        return None
    place = f"refs/exps/{head[:2]}/{head[2:]}"
    for ref in git("for-each-ref", "--format=%(refname)", place):
        if result == git("ls-tree", ref, *RESULT):
            return ref.split("/")[-1]
    commit = git("commit-tree", tree, "-p", head, "-m", "Kept as an experiment")[0]
    name = f"{name}-{commit[:7]}"
    git("update-ref", f"{place}/{name}", commit)
    return name


def load(commit: str | None, path: str) -> dict:
    """A YAML or JSON file in a commit, or in the workspace; {} if there is none or it is broken."""
    try:
        lines = git("show", f"{commit}:{path}") if commit else [Path(path).read_text("utf-8")]
        text = "\n".join(lines)
        loaded = json.loads(text) if path.endswith(".json") else yaml.load(text, yaml.CSafeLoader)
        return loaded if isinstance(loaded, dict) else {}
    except (UserError, OSError, ValueError, yaml.YAMLError):
        return {}


def leaves(values: dict, prefix: str = "") -> dict[str, str]:
    """All values by key, as `-S` takes them: {"seeds": "[0,1]", "download.dataset": '"mnist"'}."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = json.dumps(value, separators=(",", ":"))
    return found


def changes(commit: str | None, base: str) -> list[str]:
    """What was changed since `base`: params as key=value, and files of code, three at most."""
    before, after = (leaves(load(revision, "params.yaml")) for revision in (base, commit))
    changed = [f"{key}={new}" for key, new in after.items() if before.get(key) != new]
    changed += [f"-{key}" for key in before if key not in after]
    files = git("diff", "--name-only", base, *filter(None, [commit]), "--", *CODE)
    return changed + files[:3] + ["..."] * (len(files) > 3)


def has_run(commit: str | None) -> bool:
    """Whether the result is that of params.yaml, by what DVC noted in dvc.lock."""
    params, stages = load(commit, "params.yaml"), load(commit, "dvc.yaml").get("stages", {})
    seeds = params.get("seeds", [0])
    if not isinstance(seeds, list):
        return False
    entries = {
        f"{name}@{seed}" if "matrix" in stage else name
        for name, stage in stages.items()
        for seed in seeds
    }
    noted = load(commit, "dvc.lock").get("stages", {})
    for name in entries & noted.keys():  # what was taken out, a stage or a seed, stays in dvc.lock
        used = noted[name].get("params", {}).get("params.yaml", {})
        if any(params.get(key) != value for key, value in used.items()):
            return False
    return True


def tried() -> list[tuple[str, str | None, str, list[str]]]:
    """The workspace, then experiments and commits with a new result, newest first.

    Returns:
        Of each: its name, its commit (None for the workspace), the commit that it is compared with
        ("" if there is none), and the title of a commit.
    """
    rows = []
    for line in git("for-each-ref", "--format=%(creatordate:unix) %(refname)", "refs/exps/*/*/*"):
        time, ref = line.split()
        _, _, start, rest, name = ref.split("/")
        rows.append((int(time), name, ref, start + rest, []))
    log = ("log", f"-n{COMMITS}", "--format=%ct%x09%h%x09%p%x09%s", "--", "metrics/evaluate.json")
    for line in git(*log):
        time, commit, parents, title = line.split("\t")
        rows.append((int(time), commit, commit, parents.partition(" ")[0], [f"“{title}”"]))
    rows.sort(key=lambda row: row[0], reverse=True)
    return [("workspace", None, "HEAD", []), *(row[1:] for row in rows)]


def main() -> None:
    rows = [["name", *MEASURES, ["what was changed"]]]
    for name, commit, base, title in tried():
        values, changed = {}, title + (changes(commit, base) if base else [])
        if has_run(commit):
            packaged = [f"package/seed-{s}" for s in load(commit, "params.yaml").get("seeds", [])]
            for stage in ("evaluate", "robustness", *packaged[:1]):
                values |= load(commit, f"metrics/{stage}.json")
        found = [show(values[key]) if key in values else "-" for key, show in MEASURES.items()]
        rows.append([name, *found, changed or ["nothing"]])
    widths = [max(len(row[column]) for row in rows) for column in range(1 + len(MEASURES))]
    columns = shutil.get_terminal_size().columns
    for name, *found, changed in rows:
        cells = [cell.rjust(width) for cell, width in zip(found, widths[1:], strict=True)]
        start = "  ".join([name.ljust(widths[0]), *cells, ""])
        indent = len(start)
        if columns - indent < 40:  # what was changed gets lines of its own
            start, indent = f"{start.rstrip()}\n    ", 4
        options = {"break_on_hyphens": False, "break_long_words": False}
        lines = textwrap.wrap(" ".join(changed), columns - indent, **options)
        print(start + f"\n{' ' * indent}".join(lines))
    print("\nBring an experiment back: dvc exp apply NAME")
    print("Better, or chance? python -m tools.compare NAME")


if __name__ == "__main__":
    run_stage(main, __doc__)
