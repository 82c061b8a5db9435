"""Search for better params: Optuna chooses them, and every finished trial is a DVC experiment.

    python -m tools.search --trials 30 -S train.epochs=3
    python -m tools.search --best

A trial is `dvc exp run … package` in a clone of its own below .dvc/tmp/search, which shares DVC's
cache: the workspace is not touched, and neither `evaluate` nor `robustness` runs, so nothing is
chosen on test images. What these wrote for the commit is removed from the clone, or the experiment
would show it as its own result, as those of `dvc exp run --temp` do. `dvc exp push` brings the
experiment from the clone into this project.

All trials of a study have the code of one commit; the first one has the params of params.yaml,
which are to be beaten. The best has the least loss on validation images (metrics/package.json),
which differs where accuracies are equal. While a network trains, its errors on validation images
are compared with those of other trials after as many epochs; with more than the median, the trial
ends. (Losses while training would not do: label smoothing changes what they mean.)
"""

import argparse
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pandas as pd
import psutil
import yaml

from stages.base.stage import UserError, run_stage
from stages.network.settings import folder_of
from tools.run import check
from tools.space import flat, load_space, options
from tools.undo import call, git

try:
    import optuna
except ImportError:  # optional: main says how to install it
    optuna = None

FOLDER = Path(".dvc/tmp/search")
DVC = (sys.executable, "-m", "dvc")
DECIDING = ("params.yaml", "dvc.yaml", "requirements.txt", "stages")  # of what is in Git
LATER = ("evaluate", "robustness")  # stages that look at the test images
DIVERGED = "the loss became|predicts no numbers"  # so says a training with too high rates
SHOWN = 5  # trials, the best first
STOP = Event()  # set by Ctrl-C, and when a worker fails


def locked():
    """A lock that other threads and processes wait for, and that a killed process loses."""
    from dvc.lock import Lock

    FOLDER.mkdir(parents=True, exist_ok=True)
    return Lock(str(FOLDER / "lock"), wait=True)


def open_study(name: str) -> "optuna.Study":
    """The study, made if there is none; its experiments are called name-0, name-1 and so on."""
    url, timeout = f"sqlite:///{FOLDER}/trials.db", {"connect_args": {"timeout": 60}}
    with locked():  # or two workers might both make the tables
        storage = optuna.storages.RDBStorage(url, timeout)
        study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
        fail_killed(study)
    return study


def fail_killed(study: "optuna.Study") -> None:
    """Mark trials as failed whose process is no longer there, and remove what it left."""
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        number, begun = trial.user_attrs.get("process", (0, 0))
        try:  # numbers are used again
            lives = abs(psutil.Process(number).create_time() - begun) < 5
        except psutil.NoSuchProcess:
            lives = False
        if not lives:
            clear(study, trial)
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def next_trial(study: "optuna.Study", space: dict, trials: int) -> "optuna.Trial | None":
    """A trial with params from the space, None if the study has enough trials."""
    with locked():  # or two workers might both get the first one
        fail_killed(study)
        states = Counter(trial.state.name for trial in study.trials)
        if states["COMPLETE"] + states["PRUNED"] + states["RUNNING"] >= trials:
            return None
        # With one seed for all, what follows a restart would be what followed the start.
        study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
        trial, here = study.ask(), psutil.Process()
        trial.set_user_attr("process", (here.pid, here.create_time()))
        for param, (method, limits) in space.items():
            getattr(trial, method)(param, **limits)
        return trial


def folder_for(study: "optuna.Study", trial: "optuna.Trial") -> Path:
    """Where a trial runs; the folder's name is that of the experiment."""
    return FOLDER / f"{study.study_name}-{trial.number}"


def clear(study: "optuna.Study", trial: "optuna.Trial") -> None:
    """End what works in a trial's folder, and remove the folder."""
    folder = folder_for(study, trial).resolve()
    running = psutil.process_iter(["cwd", "cmdline"])
    found = [each for each in running if Path(each.info["cwd"] or "/").is_relative_to(folder)]
    found = [each for each in found if "-m" in each.info["cmdline"]]  # not somebody's shell
    for process in found:
        process.kill()
    psutil.wait_procs(found, 10)
    shutil.rmtree(folder, ignore_errors=True)


def begin(study: "optuna.Study", space: dict, fixed: list[str], values: dict) -> None:
    """Note what the study is of, or see that it is still the same.

    Raises:
        UserError: it is not, or what decides the trials' results was edited since it began.
    """
    name, setup = study.study_name, {"-S": [fixed]} | space
    if "setup" not in study.user_attrs:
        if git("for-each-ref", f"refs/exps/*/*/{name}-[0-9]*"):
            raise UserError(f"experiments {name}-… exist: give the study another name, --study …")
        study.enqueue_trial({param: values[param] for param in space}, skip_if_exists=True)
        study.set_user_attr("commit", git("rev-parse", "HEAD")[0])
        study.set_user_attr("setup", setup)
    before, commit = study.user_attrs["setup"], study.user_attrs["commit"]
    changed = [key for key in before | setup if before.get(key) != [*setup.get(key, ())]]
    if changed := changed + git("diff", "--name-only", commit, "--", *DECIDING):
        raise UserError(
            f"study {name}, begun on commit {commit[:7]}: {', '.join(changed)} changed since: "
            "undo that, or commit it and give the new study another name, --study …"
        )


def start(folder: Path, commit: str, params: list[str], log: Path) -> subprocess.Popen:
    """Clone the project's commit into a folder and run an experiment there, named after it."""
    here = ("-C", str(folder))
    git("clone", "-q", "-c", "user.name=search", "-c", "user.email=search@local", ".", str(folder))
    git(*here, "checkout", "-q", commit)
    cache = call(*DVC, "cache", "dir").stdout
    (folder / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}", encoding="utf-8")
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    outs = [out for stage in LATER for out in stages[stage]["metrics"] + stages[stage]["plots"]]
    git(*here, "rm", "-rq", "--ignore-unmatch", "--", *(path for out in outs for path in out))
    git(*here, "reset", "-q")
    command = (*DVC, "exp", "run", "--name", folder.name, *params, "package")
    with open(log, "wb") as file:  # Ctrl-C does not reach it: it is ended here, not failed
        return subprocess.Popen(
            command, cwd=folder, stdout=file, stderr=file, start_new_session=True
        )


def errors_by_epoch(folder: Path, log: str) -> list[float]:
    """The shares of misclassified validation images so far, of one network after the other."""
    running = re.findall(r"^Running stage 'train@(\d+)'", log, re.MULTILINE)  # no earlier curves
    paths = [folder / folder_of(int(seed)) / "curves.csv" for seed in running]
    frames = [pd.read_csv(path) for path in paths if path.exists()]
    return [1 - value for frame in frames for value in frame["validation_accuracy"]]


def run_trial(trial: "optuna.Trial", params: list[str], epochs: int) -> float:
    """Run a trial and make it an experiment; return its loss.

    Args:
        trial: of which the study notes what is found.
        params: options that set them.
        epochs: of all its networks; after the last one it is not judged any more.

    Raises:
        TrialPruned: it promises nothing, or its training diverged.
        UserError: it failed for another reason, or the search was stopped.
    """
    folder, epoch = folder_for(trial.study, trial), 0
    log = folder / ".git/output"  # where neither Git nor DVC looks
    running = start(folder, trial.study.user_attrs["commit"], params, log)
    while running.poll() is None:
        if STOP.wait(0.5):
            raise UserError("stopped; finished trials are kept, the same command goes on")
        for error in errors_by_epoch(folder, log.read_text("utf-8", "replace"))[epoch:]:
            epoch += 1
            trial.report(error, epoch)
            if epoch < epochs and trial.should_prune():
                raise optuna.TrialPruned(f"{error:.2%} errors after epoch {epoch}")
    text = log.read_text("utf-8", "replace")
    if re.search(DIVERGED, text):
        raise optuna.TrialPruned("the training diverged")
    if not running.returncode:
        push = ("exp", "push", "--no-cache", "origin", folder.name)
        running = call(*DVC, "--cd", str(folder), *push)
        text = running.stderr
    if running.returncode:
        why = [line for line in text.splitlines() if re.match("error: ", line, re.IGNORECASE)]
        raise UserError(f"trial {folder.name}: {'; '.join(why or text.splitlines()[-1:])}")
    found = json.loads((folder / "metrics/package.json").read_text(encoding="utf-8"))
    trial.set_user_attr("val", found["val"])
    return found["val_loss"]


def work(study: "optuna.Study", space: dict, fixed: list[str], values: dict, trials: int) -> None:
    """Run trials until the study has enough, or the search is stopped.

    Args:
        study, trials: which, and how many are enough.
        space, fixed, values: as of load_space.
    """
    states = optuna.trial.TrialState
    while not STOP.is_set() and (trial := next_trial(study, space, trials)):
        name, loss, state = folder_for(study, trial).name, None, states.FAIL
        epochs = values["train.epochs"] * len(values["seeds"])
        try:
            loss = run_trial(trial, [*fixed, *options(trial.params)], epochs)
            state = states.COMPLETE
            print(f"{name}: val_loss {loss:.4f}, val {trial.user_attrs['val']:.4f}", flush=True)
        except optuna.TrialPruned as why:
            state = states.PRUNED
            print(f"{name}: ended early, {why}", flush=True)
        except BaseException:
            STOP.set()  # the other workers, too
            raise
        finally:
            clear(study, trial)
            study.tell(trial, loss, state)


def search(args: argparse.Namespace) -> "optuna.Study":
    """Run trials until the study has enough.

    Raises:
        UserError: an option or the space is wrong, or a trial failed, or Ctrl-C was typed.
    """
    fixed = [f"-S{option}" for option in args.set_param]
    if args.seeds:
        fixed.append("-Sseeds=[" + ",".join(map(str, range(args.seeds))) + "]")
    if not (nested := check(fixed)):
        raise UserError(f"{' '.join(fixed)}: expected keys of params.yaml, one value each")
    values = flat(nested)
    if not values["preprocess.validation_size"]:
        raise UserError("preprocess.validation_size: expected more than 0 to compare trials by")
    space = load_space(args.space, fixed, values)
    study = open_study(args.study)
    begin(study, space, fixed, values)
    first = values["train.epochs"] // 3  # in which no trial is judged
    study.pruner = optuna.pruners.MedianPruner(n_warmup_steps=first + 1)
    signal.signal(signal.SIGINT, lambda *_: STOP.set())
    with ThreadPoolExecutor(args.workers) as pool:
        job = (work, study, space, fixed, values, args.trials)
        workers = [pool.submit(*job) for _ in range(args.workers)]
    if errors := [error for worker in workers if (error := worker.exception())]:
        raise min(errors, key=lambda error: str(error).startswith("stopped"))  # first the cause
    return study


def report(study: "optuna.Study") -> None:
    """Print the best trials, and the command that makes the first one's params the project's.

    Raises:
        UserError: no trial has finished.
    """
    states = Counter(trial.state.name.lower() for trial in study.trials)
    done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if not done:
        raise UserError(f"study {study.study_name}: no trial has finished")
    best = sorted(done, key=lambda trial: trial.value)[:SHOWN]
    rows = [{"val_loss": each.value, "val": each.user_attrs["val"], **each.params} for each in best]
    table = pd.DataFrame(rows, [folder_for(study, each).name for each in best]).T
    print(f"\n{', '.join(f'{count} {state}' for state, count in states.items())}; the best:\n")
    print(table.to_string(float_format="{:.4g}".format))
    committed = yaml.safe_load("\n".join(git("show", f"{study.user_attrs['commit']}:params.yaml")))
    values = flat(committed)
    keys = [option[2:].partition("=")[0] for option in study.user_attrs["setup"]["-S"][0]]
    back = [f"-S{key}={json.dumps(values[key])}" for key in keys]
    then = shlex.join(["dvc", "exp", "run", *back]) if back else "dvc repro"
    print(f"\nTo take the params of the first:\n\n    dvc exp apply {table.columns[0]}\n    {then}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20, help="of the study, over all its runs")
    parser.add_argument("--workers", type=int, default=1, help="trials at the same time")
    parser.add_argument("--seeds", type=int, help="networks per trial, of which it has the mean")
    parser.add_argument(
        "--space", type=Path, default="presets/search.yaml", help="what is searched"
    )
    parser.add_argument(
        "--study", default="search", help="its name, with which its experiments begin"
    )
    parser.add_argument("-S", "--set-param", action="append", default=[], help="for all trials")
    parser.add_argument("--best", action="store_true", help="show the best trials, run none")
    args = parser.parse_args()
    if optuna is None:
        raise UserError("optuna is not installed: pip install -r requirements-scaling.txt")
    if not re.fullmatch(r"[a-z][\w-]*", args.study) or min(args.workers, args.seeds or 1) < 1:
        raise UserError("--study: expected a name like b; --workers, --seeds: 1 or more")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")  # Optuna's, of choices that are lists
    report(open_study(args.study) if args.best else search(args))


if __name__ == "__main__":
    run_stage(main)
