"""The pipeline as its users run it: real DVC in a copy of the project, on the dataset `digits`."""

import json
from pathlib import Path

import pytest
from conftest import ROOT, STAGES, assert_covers, change_params, dvc, lock_entry, run, stages_run


@pytest.fixture(scope="module")
def used(finished: Path) -> dict[str, dict]:
    """What each stage used when the pipeline ran."""
    traces = {stage: finished.parent / f"trace/{stage}.json" for stage in STAGES}
    return {stage: json.loads(path.read_text("utf-8")) for stage, path in traces.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_yaml_lists_what_the_stage_imports_opens_loads_and_writes(finished, used, stage):
    entry, traced = lock_entry(finished, stage)[0], used[stage]

    def ours(paths: list[str]) -> set[str]:
        """Not Git's and DVC's own files, nor params.yaml, which is compared key by key."""
        skip = (".git", ".dvc", "params.yaml")
        kept = {path for path in paths if (finished / path).exists() and not path.startswith(skip)}
        return {path for path in kept if not path.endswith(("__init__.py", ".pyc"))}

    inputs = {path for path in ours(traced["opened"]) if (finished / path).is_file()}
    inputs |= ours(traced["modules"])
    if stage == "download":  # of which a published dataset needs nothing
        inputs.add("data/own/README.md")
    if stage in ("evaluate", "robustness"):  # LiteRT opens it, unseen by Python
        inputs.add("models/packaged/seed-0/model.tflite")
    if stage != "train":  # it checks the versions; data stays the same whatever they are
        inputs.discard("stages/base/versions.txt")
    assert_covers({dep["path"] for dep in entry["deps"]}, inputs)
    written = {path for path in ours(traced["written"]) if (finished / path).is_file()}
    assert_covers({out["path"] for out in entry["outs"]}, written)
    params = set(traced["params"])
    if stage == "train":  # it compares its seed with the list; another list trains none again
        params.discard("seeds")
    assert set(entry.get("params", {"params.yaml": ()})["params.yaml"]) == params


def test_train_never_opens_the_test_images(used):
    assert not [path for path in used["train"]["opened"] if "test" in path or "t10k" in path]


def test_large_packages_are_imported_only_where_they_are_needed(used):
    users = {"train", "package"}
    assert {stage for stage in STAGES if "tensorflow" in used[stage]["packages"]} == users
    assert not {"matplotlib", "sklearn"} & set(used["train"]["packages"])


def assert_unchanged(project: Path) -> None:
    """`dvc repro` runs nothing, and all that is in Git is as committed."""
    assert not stages_run(dvc(project, "repro"))
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""
    assert "up to date" in dvc(project, "status")


def test_results_are_in_git_data_and_models_are_not(finished):
    tracked = run("git", "ls-files", cwd=finished).stdout.split()
    results = [path for path in tracked if path.startswith(("metrics/", "plots/", "dvc.lock"))]
    committed = run("git", "ls-files", "metrics", "plots", "dvc.lock", cwd=ROOT).stdout.split()
    assert set(results) == set(committed)
    assert {path for path in tracked if path.startswith(("data/", "models/"))} == {
        "data/README.md",
        "data/own/README.md",
    }


def test_a_wrong_param_stops_the_pipeline_before_any_work_and_then_nothing_runs_again(folder):
    change_params(folder, preprocess__seed=1, train__epochs="many")
    result = run("dvc", "repro", cwd=folder, check=False)
    assert result.returncode != 0
    assert "train.epochs" in result.stderr
    assert "Traceback" not in result.stderr
    run("git", "checkout", "params.yaml", cwd=folder)
    assert_unchanged(folder)


@pytest.mark.slow
def test_a_failed_download_loses_nothing(folder):
    change_params(folder, download__dataset="kmnist")
    nowhere = "http://127.0.0.1:9"  # the port "discard": no mirror is reached through this proxy
    proxies = {"HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere}
    result = run("dvc", "repro", cwd=folder, check=False, MNIST_MIRROR="", **proxies)
    assert result.returncode != 0
    assert stages_run(result.stdout) == {"download"}
    assert "codh.rois.ac.jp" in result.stderr
    change_params(folder, download__dataset="digits")
    assert_unchanged(folder)
