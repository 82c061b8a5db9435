"""The pipeline as its users run it: real DVC in a copy of the project, on the dataset `digits`."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, change_params, commit, copy_project, lock_entry, run, stages_run

STAGES = tuple(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    """A project in which `dvc repro` has run on digits, and what each stage used."""
    project = copy_project(tmp_path_factory.mktemp("pipeline") / "project")
    trace = project.parent / "trace"
    trace.mkdir()
    run("dvc", "repro", cwd=project, PYTHONPATH=str(ROOT / "tests/tracing"), TRACE=str(trace))
    commit(project, "run")
    return project, {
        stage: json.loads((trace / f"{stage}.json").read_text(encoding="utf-8")) for stage in STAGES
    }


@pytest.fixture
def project(traced, tmp_path: Path) -> Path:
    """A copy of the project that has run, for a test to change."""
    return shutil.copytree(traced[0], tmp_path / "project", symlinks=True)


def assert_covers(listed: set[str], paths: set[str]) -> None:
    """Each path is listed, itself or by its folder, and nothing is listed in vain."""

    def within(path: str, name: str) -> bool:
        return path == name or path.startswith(f"{name}/")

    assert not {path for path in paths if not any(within(path, name) for name in listed)}
    assert not {name for name in listed if not any(within(path, name) for path in paths)}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_what_the_stage_imports_and_opens(traced, stage):
    project, used = traced
    # Git's and DVC's own files are no inputs; params.yaml is compared key by key below.
    ours = {
        path
        for path in used[stage]["modules"] + used[stage]["opened"]
        if (project / path).is_file()
        and not path.startswith((".git", ".dvc"))
        and "__pycache__" not in path
        and not path.endswith("__init__.py")
        and path != "params.yaml"
    }
    if stage == "download":  # only waits for it: see dvc.yaml
        ours.add("data/environment.txt")
    if stage == "robustness":  # LiteRT opens it, unseen by Python
        ours.add("models/packaged/seed-0.tflite")
    assert_covers({dep["path"] for dep in lock_entry(project, stage)[0]["deps"]}, ours)


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_what_the_stage_loads(traced, stage):
    project, used = traced
    listed = lock_entry(project, stage)[0].get("params", {"params.yaml": {}})
    assert set(listed["params.yaml"]) == set(used[stage]["params"])


@pytest.mark.parametrize("stage", STAGES)
def test_outs_are_what_the_stage_writes(traced, stage):
    project, used = traced
    kept = {
        path
        for path in used[stage]["written"]
        if (project / path).exists() and not path.startswith(".dvc/tmp/")
        if "__pycache__" not in path
    }
    assert_covers({out["path"] for out in lock_entry(project, stage)[0]["outs"]}, kept)


def test_train_never_opens_the_test_images(traced):
    _, used = traced
    assert not [path for path in used["train"]["opened"] if "test" in path or "t10k" in path]


def test_what_only_predicts_does_not_import_tensorflow(traced):
    for stage in ("evaluate", "robustness"):
        assert "stages/network/runtime.py" not in traced[1][stage]["modules"]


def test_every_section_of_params_concerns_a_stage(traced):
    content = yaml.safe_load((traced[0] / "params.yaml").read_text(encoding="utf-8"))
    loaded = [set(used["params"]) for stage, used in traced[1].items() if stage != "environment"]
    # DVC itself reads the seeds for train's matrix.
    assert set(content) == set().union(*loaded)


def test_a_second_repro_runs_nothing(traced):
    project, _ = traced
    assert not stages_run(run("dvc", "repro", cwd=project))
    assert "up to date" in run("dvc", "status", cwd=project).stdout
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


def test_results_are_in_git_data_and_models_are_not(traced):
    tracked = run("git", "ls-files", cwd=traced[0]).stdout.split()
    results = [path for path in tracked if path.startswith(("metrics/", "plots/", "dvc.lock"))]
    committed = run("git", "ls-files", "metrics", "plots", "dvc.lock", cwd=ROOT).stdout.split()
    apps = yaml.safe_load((ROOT / "apps/dvc.yaml").read_text(encoding="utf-8"))["stages"]
    of_apps = {path for stage in apps.values() for plot in stage["plots"] for path in plot}
    assert set(results) == set(committed) - of_apps
    assert [path for path in tracked if path.startswith(("data/", "models/"))] == ["data/README.md"]


def test_a_wrong_param_stops_the_pipeline_before_any_work_and_loses_nothing(project):
    change_params(project, preprocess__seed=1, train__epochs="many")
    result = run("dvc", "repro", cwd=project, check=False)
    assert result.returncode != 0
    assert "train.epochs" in result.stderr
    assert "Traceback" not in result.stderr
    run("git", "checkout", "params.yaml", cwd=project)
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""
    assert not stages_run(run("dvc", "repro", cwd=project))


@pytest.mark.slow
@pytest.mark.skipif("MNIST_MIRROR" not in os.environ, reason="MNIST_MIRROR names no copy of MNIST")
def test_another_dataset_runs_everything_and_the_way_back_runs_nothing(project):
    change_params(project, download__dataset="mnist")
    assert len(stages_run(run("dvc", "repro", cwd=project))) == len(STAGES) - 1, "all but page"
    scores = json.loads((project / "metrics/details/scores.json").read_text(encoding="utf-8"))
    assert (scores["dataset"], scores["images"]) == ("mnist", 10_000)
    change_params(project, download__dataset="digits")
    assert not stages_run(run("dvc", "repro", cwd=project))
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


@pytest.mark.slow
def test_a_failed_download_loses_nothing(project):
    change_params(project, download__dataset="kmnist")
    nowhere = "http://127.0.0.1:9"  # the port "discard": no mirror is reached through this proxy
    proxies = {"HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere}
    result = run("dvc", "repro", cwd=project, check=False, MNIST_MIRROR="", **proxies)
    assert result.returncode != 0
    assert stages_run(result) == {"environment", "download"}
    assert "codh.rois.ac.jp" in result.stderr
    change_params(project, download__dataset="digits")
    assert not stages_run(run("dvc", "repro", cwd=project))
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


@pytest.mark.slow
def test_force_writes_the_same_bytes(project):
    run("dvc", "repro", "--force", cwd=project)
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""
