"""Stale results are impossible: of a change, `dvc status` names exactly the stages concerned."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, STAGES, change_params, copy_project, run
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
    run("dvc", "commit", "--force", cwd=folder)
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
    ("name", "expected"),
    [
        ("stages/train.py", {"train"}),
        ("stages/network/augment.py", {"train", "package"}),
        ("stages/prediction/views.py", BEHIND_TRAINING),
        ("stages/report/pictures.py", {"evaluate", "robustness"}),
        ("stages/dataset/catalogue.yaml", set(STAGES) - {"train", "package"}),
        ("stages/base/stage.py", set(STAGES)),
        ("tools/compare.py", set()),
    ],
)
def test_an_edited_file_concerns_the_stages_that_use_it(project, name, expected):
    with edited(project / name):
        assert status(project) == expected


BEHIND_PREPROCESS = {"preprocess", "train"} | BEHIND_TRAINING
# The README's table "What runs again", row by row: something to change, and what runs.
ROWS = {
    "`download.dataset`": ({"download__dataset": "kmnist"}, {"download"} | BEHIND_PREPROCESS),
    "`preprocess`": ({"preprocess__seed": 1}, BEHIND_PREPROCESS),
    "`train`, or a file of `stages/network`": ({"train__epochs": 7}, {"train"} | BEHIND_TRAINING),
    "`seeds`": ({"seeds": [0, 1]}, {"train"} | BEHIND_TRAINING),
    "`package`, or a file of `stages/prediction`": ({"package__average_shift": 2}, BEHIND_TRAINING),
    "a file of `stages/report`": ("stages/report/scores.py", {"evaluate", "robustness"}),
    "`evaluate`; `robustness`": ({"evaluate__seed": 1}, {"evaluate"}),
    "the pinned version of TensorFlow, Keras or another package that decides results": (
        *("data/environment.txt", {"download", "train"} | BEHIND_TRAINING),
    ),
    "a comment in `params.yaml`, this README, a test, a tool": ("params.yaml", set()),
}


def test_what_runs_again_is_as_the_readme_says(project):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("What runs again:")[1].split("\n\n")[1]
    assert [row.split(" | ")[0] for row in table.splitlines()[2:]] == [f"| {row}" for row in ROWS]
    for row, (change, expected) in ROWS.items():
        path = project / (change if isinstance(change, str) else "params.yaml")
        with edited(path):
            if isinstance(change, dict):
                change_params(project, **change)
            assert with_followers(status(project)) == expected, row


def with_followers(stages: set[str]) -> set[str]:
    """All that runs because of these stages; `environment` and `download` write the same again."""
    found = stages - {"environment", "download"}
    for name, stage in STAGES.items():  # in the order in which they run
        outs = [out.split("$")[0] for other in found for out in STAGES[other].get("outs", ())]
        if any(out.startswith(dep) for out in outs for dep in stage["deps"]):
            found.add(name)
    return found | stages & {"download"}
