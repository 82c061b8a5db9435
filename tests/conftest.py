"""What the tests share: copies of the project, and ways to run it by the doors that users have."""

import contextlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from browser import CHROMIUM, Tab, chromium
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
LAYERS = "batches augment photometric architecture optimizer"
MODELS = LAYERS + " settings package train callbacks classify draw benchmarks"
MODELS = [f"test_{name}" for name in MODELS.split()]  # files that need TensorFlow
NOTES = (".git", ".dvc", "__pycache__", "dvc.lock")  # beside the results of a run
SMALL = {
    "seeds": [0],
    "train__batch_size": 128,
    "train__epochs": 2,
    "train__network__filters": [4, 8, 8],
}
SHARED: list[Path] = []  # of all workers: the folder of `reproduced`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first; what needs models waits until a worker has made them."""
    first = [*MODELS, "test_pipeline", "test_kills"]
    places = {name: place for place, name in enumerate(first)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


class Scheduler(LoadScopeScheduling):
    """A worker runs whole files; one runs all that need TensorFlow."""

    def _split_scope(self, test: str) -> str:  # what xdist says to override
        name = Path(test.split("::")[0]).stem
        return "models" if name in MODELS else name


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log) -> LoadScopeScheduling:
    return Scheduler(config, log)


def copy_project(target: Path) -> Path:
    """A Git repository with the project's pipeline, set to train a tiny model on digits."""
    ignored = shutil.ignore_patterns("__pycache__", "dvc.yaml", "dvc.lock")  # the latter of apps/
    for name in ("apps", "stages", "tools", "presets", ".dvc/plots"):
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    files = "dvc.yaml params.yaml requirements.txt .dvcignore .gitignore .gitattributes "
    files += "data/README.md data/own/README.md .dvc/config .dvc/.gitignore .dvc/page.html"
    for name in files.split():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    change_params(
        target,
        download__dataset="digits",
        robustness__images=20,
        evaluate__samples=1,
        evaluate__misclassified=5,
        **SMALL,
    )
    git_init(target)
    commit(target, "start")
    return target


def git_init(folder: Path) -> None:
    run("git", "init", "-q", "-b", "main", cwd=folder)
    run("git", "config", "user.name", "Tests", cwd=folder)
    run("git", "config", "user.email", "tests@example.com", cwd=folder)


def commit(project: Path, message: str) -> None:
    """Commit all changes, new files among them."""
    run("git", "add", "-A", cwd=project)
    run("git", "commit", "-qm", message, cwd=project)


def run_stage(main: Callable[[], None], folder: Path, *arguments: str) -> str:
    """Run a stage's `main` in `folder`, in this process; what it prints, to no terminal."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["stage", *arguments])
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            main()
    return output.getvalue()


def dvc(folder: Path, *arguments: str) -> str:
    """What a DVC command says, run in this process: to start DVC takes two seconds."""
    from dvc.cli import main  # here: the import takes a second

    output = io.StringIO()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.chdir(folder)
        patch.setenv("PATH", path)  # dvc.yaml calls `python`: it must be the same
        for handler in logging.getLogger("dvc").handlers:  # which keep the stdout of the import
            patch.setattr(handler, "stream", output)
        code = main([*arguments])
    assert code == 0, output.getvalue()
    return output.getvalue()


def small_project(folder: Path, **values) -> Path:
    """Put params.yaml into `folder`: a small model on digits, two epochs, params as given."""
    shutil.copy(ROOT / "params.yaml", folder)
    change_params(folder, download__dataset="digits", **SMALL | values)
    return folder


def prepared(folder: Path, **values) -> Path:
    """`small_project`, and the stages download and preprocess in it."""
    from stages import download, preprocess

    small_project(folder, **values)
    run_stage(download.main, folder)
    run_stage(preprocess.main, folder)
    return folder


def packaged(folder: Path, **values) -> Path:
    """`prepared`, then train and package; a copy of what `dvc repro` made, if that is the same."""
    trained = {name: value for name, value in values.items() if name.startswith("train__")}
    if SMALL | trained == SMALL:
        small_project(folder, **values)
        for name in ("data", "models", "metrics"):
            shutil.copytree(reproduced() / name, folder / name, dirs_exist_ok=True)
        return folder
    from stages import package, train  # here: TensorFlow takes seconds

    prepared(folder, **values)
    for stage in (train, package):
        run_stage(stage.main, folder, "--seed", "0")
    return folder


def contents(folder: Path, *without: str) -> dict[str, bytes]:
    """All files in a folder and below, by path, but those with one of these names in their path."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    kept = {path: file for path, file in files.items() if not set(without) & set(path.parts)}
    return {path.as_posix(): file.read_bytes() for path, file in kept.items()}


def lock_entry(project: Path, stage: str) -> tuple[dict, list[Path]]:
    """What DVC noted of a stage (deps, params, outs), and all files of its outputs."""
    lock = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    entry = lock[stage] if stage in lock else lock[f"{stage}@0"]
    outs = [project / out["path"] for out in entry["outs"]]
    return entry, [file for out in outs for file in [out, *out.rglob("*")] if file.is_file()]


def within(path: str, names: Iterable[str]) -> bool:
    """Whether a path is one of these or in one of them."""
    return any(path == name or path.startswith(f"{name}/") for name in names)


def assert_covers(listed: set[str], paths: set[str]) -> None:
    """Each path is listed, itself or by its folder, and nothing is listed in vain."""
    assert not {path for path in paths if not within(path, listed)}
    assert not {name for name in listed if not any(within(path, [name]) for path in paths)}


def leaves(values: dict, prefix: str = "") -> Iterator[str]:
    """The keys of all values that are no sections, with dots."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def change_params(folder: Path, **values) -> None:
    """Set values in a folder's params.yaml by their keys, with dots, or as train__epochs=1."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in values.items():
        *sections, last = key.replace("__", ".").split(".")
        section = params
        for name in sections:
            section = section[name]
        section[last] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def run(
    *command: str, cwd: Path, check=True, python: str | Path = sys.executable, **environment: str
) -> subprocess.CompletedProcess:
    """Run a program in `cwd`, `python` and `dvc` being `python`'s; output as text."""
    programs = {"python": [python], "dvc": [python, "-m", "dvc"]}
    # dvc.yaml calls `python`: it must be the same.
    path = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])
    result = subprocess.run(
        [*programs.get(command[0], [command[0]]), *command[1:]],
        cwd=cwd,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=900,
    )
    if check and result.returncode:
        raise AssertionError(f"{command} failed:\n{result.stdout}\n{result.stderr}")
    return result


def stages_run(said: str) -> set[str]:
    """The stages that a `dvc repro` says it ran, not those it found in DVC's cache."""
    return set(re.findall(r"^Running stage '(.+)'", said, re.MULTILINE))


def reproduced() -> Path:
    """A project in which `dvc repro` has run, traced, committed; the first who asks makes it."""
    project = SHARED[0] / "project"
    with FileLock(SHARED[0] / "lock"):
        if not (SHARED[0] / "made").exists():
            copy_project(project)
            (trace := SHARED[0] / "trace").mkdir()
            tracing = {"PYTHONPATH": str(ROOT / "tests/tracing"), "TRACE": str(trace)}
            with pytest.MonkeyPatch.context() as patch:
                for name, value in (tracing | settings_of_others(SHARED[0])).items():
                    patch.setenv(name, value)
                dvc(project, "repro")
            commit(project, "run")
            (SHARED[0] / "made").touch()
    return project


@pytest.fixture(scope="session", autouse=True)
def _shared(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()  # below xdist's, if it is a worker's
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    (folder / "reproduced").mkdir(exist_ok=True)
    SHARED.append(folder / "reproduced")


@pytest.fixture(scope="session")
def finished() -> Path:
    """A project in which `dvc repro` has run, committed; not to be changed."""
    return reproduced()


def settings_of_others(folder: Path) -> dict[str, str]:
    """Environment of a user who has set much for other projects: no byte may show it.

    test_two_at_once compares the result with that of runs without these settings.
    """
    keras = {"floatx": "float64", "image_data_format": "channels_first", "epsilon": 0.1}
    (folder / "keras.json").write_text(json.dumps(keras | {"backend": "torch"}))
    (folder / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\n")
    chosen = {"MPLBACKEND": "none", "MATPLOTLIBRC": str(folder), "KERAS_HOME": str(folder)}
    chosen |= {"KERAS_BACKEND": "torch", "KERAS_MAX_STEPS_PER_EPOCH": "1"}
    chosen |= {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"}
    chosen |= {"TF_ENABLE_ONEDNN_OPTS": "0", "ONEDNN_MAX_CPU_ISA": "SSE41", "LC_ALL": "C"}
    return chosen | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "5"}


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished`, to change and run in."""
    return shutil.copytree(finished, tmp_path / "folder", symlinks=True)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser that reaches nothing but files."""
    if not CHROMIUM:
        pytest.skip("no chromium is installed")
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the project's params.yaml, set to `digits`, a tenth for validation."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    change_params(tmp_path, download__dataset="digits", preprocess__validation_size=0.1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MNIST_MIRROR", raising=False)
    return tmp_path
