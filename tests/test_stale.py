"""Stale results are impossible: of a change, `dvc status` names exactly the stages concerned."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import STAGES, change_params, copy_project
from dvc.repo import Repo

BEHIND_TRAINING = {"package", "evaluate", "robustness"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which DVC was told that files of a few bytes are what the stages wrote."""
    folder = copy_project(tmp_path_factory.mktemp("stale") / "project")
    with contextlib.chdir(folder):
        for number, out in enumerate(Repo(folder).index.outs):
            path = Path(out.fs_path)
            path = path if path.suffix else path / "file"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"result {number}")
        with contextlib.closing(Repo(folder)) as repo:
            repo.commit(force=True)
    assert status(folder) == set()
    return folder


def status(project: Path) -> set[str]:
    """The stages of dvc.yaml that `dvc status` names, those of a matrix as one stage."""
    with contextlib.chdir(project), contextlib.closing(Repo(project)) as repo:
        return {name.split("@")[0] for name in repo.status() if ":" not in name}


@contextlib.contextmanager
def edited(path: Path) -> Iterator[None]:
    """Within the block, `path` ends with a comment."""
    before = path.read_bytes()
    path.unlink()  # DVC may have linked it to its cache
    path.write_bytes(before + b"# a comment\n")
    try:
        yield
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("stages/network/augment.py", {"train", "package"}),
        ("stages/prediction/views.py", BEHIND_TRAINING),
        ("stages/base/versions.txt", set(STAGES)),  # of the packages that decide results
        ("tools/compare.py", set()),
        ("params.yaml", set()),  # a comment
        ({"download__dataset": "kmnist"}, {"download"}),
        ({"train__epochs": 7}, {"train"}),
        ({"seeds": [0, 1]}, {"train"} | BEHIND_TRAINING),
    ],
    # Sets have no order, and all workers must give a test the same name.
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_a_change_concerns_the_stages_that_use_it(project, change, expected):
    """An edited file or other params; what follows on these stages runs if their outputs differ."""
    with edited(project / (change if isinstance(change, str) else "params.yaml")):
        if isinstance(change, dict):
            change_params(project, **change)
        assert status(project) == expected
