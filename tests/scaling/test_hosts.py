"""Many seeds, many hosts: each trains some and pushes them, one pulls all and trains nothing.

The hosts are clones on this machine, and the DVC remote between them is a folder.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import change_params, commit, contents, dvc, run, stages_run

pytestmark = pytest.mark.slow


def clone(project: Path, name: str) -> Path:
    """Another host: a clone that has the project's remote."""
    run("git", "clone", "-q", str(project), name, cwd=project.parent)
    return project.with_name(name)


def collect(host: Path, check: bool = True) -> subprocess.CompletedProcess:
    """Fetch what others trained; with this shell no stage can start."""
    return run("dvc", "repro", "--pull", "train", cwd=host, check=check, SHELL="/bin/false")


@pytest.fixture(scope="module")
def project(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two seeds and a remote, to which two hosts have pushed a model each."""
    project = shutil.copytree(finished, tmp_path_factory.mktemp("hosts") / "project", symlinks=True)
    change_params(project, seeds=[0, 1])
    dvc(project, "remote", "add", "-d", "shared", str(project.with_name("store")))
    commit(project, "two seeds, a remote for all hosts")
    for name, seed in (("first", 0), ("second", 1)):
        host = clone(project, name)
        dvc(host, "repro", f"train@{seed}")
        dvc(host, "push", "--run-cache")
    return project


def test_the_last_host_has_all_models_and_trains_none(project: Path):
    last = clone(project, "last")
    assert not stages_run(collect(last).stdout)
    assert not stages_run(dvc(last, "repro", "train"))
    trained = [contents(project.with_name(name) / "models/trained") for name in ("first", "second")]
    assert contents(last / "models/trained") == trained[0] | trained[1]
    assert "up to date" in dvc(last, "status", "train")


def test_what_the_remote_lacks_is_an_error_until_it_is_there(project: Path):
    store = project.with_name("store")
    host = clone(project, "early")
    (away := store.with_name("away")).mkdir()
    models = [path for path in (store / "files").rglob("*") if path.is_file()]
    for path in models[::2]:
        path.rename(away / f"{path.parent.name}{path.name}")
    refused = collect(host, check=False)
    assert refused.returncode
    assert "ERROR: " in refused.stderr
    for path in models[::2]:
        (away / f"{path.parent.name}{path.name}").rename(path)
    assert not stages_run(collect(host).stdout)
