"""The pipeline as its users run it: real DVC in a copy of the project, on the dataset `digits`."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, change_params, copy_project, run

STAGES = tuple(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    """A project in which `dvc repro` has run on digits, and what each stage used."""
    project = copy_project(tmp_path_factory.mktemp("pipeline") / "project")
    trace = project.parent / "trace"
    trace.mkdir()
    run("dvc", "repro", cwd=project, PYTHONPATH=str(ROOT / "tests/tracing"), TRACE=str(trace))
    run("git", "add", "-A", cwd=project)
    run("git", "commit", "-qm", "run", cwd=project)
    return project, {
        stage: json.loads((trace / f"{stage}.json").read_text(encoding="utf-8")) for stage in STAGES
    }


@pytest.fixture
def project(traced, tmp_path: Path) -> Path:
    """A copy of the project that has run, for a test to change."""
    return shutil.copytree(traced[0], tmp_path / "project", symlinks=True)


def lock_entry(project: Path, stage: str) -> dict:
    """What DVC noted of a stage: deps, params and outs as it resolved them."""
    lock = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))
    nothing = {"params": {"params.yaml": {}}}  # of a stage that has no params
    return nothing | lock["stages"]["train@0" if stage == "train" else stage]


def leaves(content: object, prefix: str) -> set[str]:
    """Dotted keys of the values in nested dicts."""
    if not isinstance(content, dict):
        return {prefix}
    return set().union(*(leaves(value, f"{prefix}.{key}") for key, value in content.items()))


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_what_the_stage_imports_and_reads(traced, stage):
    project, used = traced
    listed = {dep["path"] for dep in lock_entry(project, stage)["deps"]}
    files = {path for path in listed if (project / path).is_file()}
    folders = listed - files
    # Git's and DVC's own files are no inputs, and params.yaml is compared key by key below.
    ours = {
        path
        for path in used[stage]["modules"] + used[stage]["read"]
        if (project / path).is_file()
        and not path.startswith((".git", ".dvc", "stages/__pycache__"))
        and path != "params.yaml"
    }
    if stage == "download":  # only waits for it: see dvc.yaml
        ours.add("data/environment.txt")
    in_folders = {path for path in ours if any(path.startswith(f"{name}/") for name in folders)}
    assert files == ours - in_folders
    for folder in folders:
        assert any(path.startswith(f"{folder}/") for path in in_folders), f"{folder} is never read"


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_what_the_stage_reads(traced, stage):
    project, used = traced
    listed = lock_entry(project, stage)["params"]["params.yaml"]
    keys = set().union(*(leaves(value, key) for key, value in listed.items()))
    if stage == "environment":  # it reads none of them, it checks them all
        content = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
        assert keys == set().union(*(leaves(value, key) for key, value in content.items()))
    else:
        assert keys == set(used[stage]["params"])


@pytest.mark.parametrize("stage", STAGES)
def test_outs_are_what_the_stage_writes(traced, stage):
    project, used = traced
    listed = {out["path"] for out in lock_entry(project, stage)["outs"]}
    written = {
        path
        for path in used[stage]["written"]
        if not path.startswith(".dvc/tmp/") and "__pycache__" not in path
    }
    unlisted = {
        path
        for path in written
        if path not in listed and not any(path.startswith(f"{out}/") for out in listed)
        if (project / path).exists()  # temporary files are gone
    }
    assert not unlisted
    for out in listed:
        assert any(path == out or path.startswith(f"{out}/") for path in written)


def test_train_never_opens_the_test_images(traced):
    _, used = traced
    assert not [path for path in used["train"]["read"] if "test_" in path or "t10k" in path]


def test_a_second_repro_runs_nothing(traced):
    project, _ = traced
    result = run("dvc", "repro", cwd=project)
    assert "Running stage" not in result.stdout
    assert "up to date" in run("dvc", "status", cwd=project).stdout
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


def test_lock_metrics_and_plots_are_in_git_data_and_models_are_not(traced):
    project, _ = traced
    tracked = run("git", "ls-files", cwd=project).stdout.split()
    metrics = [f"metrics/{name}.json" for name in ("evaluate", "robustness", "train/seed-0")]
    for path in ("dvc.lock", *metrics):
        assert path in tracked
    assert any(path.startswith("plots/training/seed-0/") for path in tracked)
    assert not [path for path in tracked if path.startswith(("data/", "models/"))]


def test_every_value_in_params_concerns_a_stage(traced):
    """A value that no stage lists would be changed without any effect."""
    project, _ = traced
    listed = set()
    for stage in STAGES:
        for key, value in lock_entry(project, stage)["params"]["params.yaml"].items():
            listed |= leaves(value, key)
    content = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    everything = set().union(*(leaves(value, key) for key, value in content.items()))
    assert everything == listed


def test_robustness_can_be_skipped(project):
    change_params(project, robustness__images=30)
    ran = stages_run(run("dvc", "repro", "evaluate", cwd=project).stdout)
    assert ran <= {"environment"}
    assert "robustness" in run("dvc", "status", cwd=project).stdout


def test_a_wrong_param_stops_the_pipeline_before_any_work_and_loses_nothing(project):
    change_params(project, preprocess__seed=1, train__epochs="many")
    result = run("dvc", "repro", cwd=project, check=False)
    assert result.returncode != 0
    assert "train.epochs" in result.stderr
    assert "Traceback" not in result.stderr
    run("git", "checkout", "params.yaml", cwd=project)
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""
    assert not stages_run(run("dvc", "repro", cwd=project).stdout)


# The README's table "Change this, and these stages run", a row each.
ROWS = [
    ({"preprocess__validation_size": 100}, {"preprocess", "train@0", "evaluate", "robustness"}),
    ({"preprocess__seed": 1}, {"preprocess", "train@0", "evaluate", "robustness"}),
    ({"train__epochs": 2}, {"train@0", "evaluate", "robustness"}),
    ({"train__augment__rotation": 5}, {"train@0", "evaluate", "robustness"}),
    ({"train__network__filters": [4, 8, 12]}, {"train@0", "evaluate", "robustness"}),
    ({"train__seeds": [0, 1]}, {"train@1", "evaluate", "robustness"}),
    ({"evaluate__mistakes": 3}, {"evaluate"}),
    ({"robustness__images": 30}, {"robustness"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "expected"), ROWS, ids=[str(row[0]) for row in ROWS])
def test_a_changed_param_reruns_what_it_concerns(project, change, expected):
    change_params(project, **change)
    ran = stages_run(run("dvc", "repro", cwd=project).stdout)
    assert ran == expected | {"environment"}, "which checks every change of params.yaml"


def stages_run(output: str) -> set[str]:
    """The stages that `dvc repro` says it runs."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


@pytest.mark.slow
def test_a_comment_reruns_nothing(project):
    with open(project / "params.yaml", "a", encoding="utf-8") as file:
        file.write("# a comment\n")
    assert not stages_run(run("dvc", "repro", cwd=project).stdout)


@pytest.mark.slow
@pytest.mark.skipif("MNIST_MIRROR" not in os.environ, reason="MNIST_MIRROR names no copy of MNIST")
def test_another_dataset_reruns_everything_and_the_way_back_leads_to_the_same_bytes(project):
    change_params(project, download__dataset="mnist")
    stages = {"environment", "download", "preprocess", "train@0", "evaluate", "robustness"}
    assert stages_run(run("dvc", "repro", cwd=project).stdout) == stages
    metrics = json.loads((project / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert (metrics["dataset"], metrics["test_images"]) == ("mnist", 10_000)
    change_params(project, download__dataset="digits")
    again = stages_run(run("dvc", "repro", cwd=project).stdout)
    assert not again & {"download", "preprocess"}, "DVC's run cache has their outputs"
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


@pytest.mark.slow
def test_a_failed_download_loses_nothing(project, tmp_path):
    change_params(project, download__dataset="kmnist")
    nowhere = "http://127.0.0.1:9"  # the port "discard": no mirror is reached through this proxy
    environment = {"MNIST_MIRROR": str(tmp_path), "HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere}
    result = run("dvc", "repro", cwd=project, check=False, **environment)
    assert result.returncode != 0
    assert stages_run(result.stdout) == {"environment", "download"}
    assert "MNIST_MIRROR" in result.stderr
    change_params(project, download__dataset="digits")
    assert not stages_run(run("dvc", "repro", cwd=project).stdout), "DVC's cache has it all"
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


@pytest.mark.slow
def test_forced_runs_write_the_same_bytes(project):
    run("dvc", "repro", "--force", cwd=project)
    assert run("git", "diff", "--stat", cwd=project).stdout == ""


@pytest.mark.slow
def test_a_removed_seed_leaves_nothing_behind(project):
    change_params(project, train__seeds=[0, 1])
    run("dvc", "repro", cwd=project)
    metrics = json.loads((project / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert set(metrics["seeds"]) == {"0", "1"}
    change_params(project, train__seeds=[0])
    run("dvc", "repro", cwd=project)
    assert run("git", "diff", "--stat", cwd=project).stdout == ""
    assert [path.name for path in (project / "models").iterdir()] == ["seed-0.keras"]


@pytest.mark.slow
def test_dvc_commands_of_the_readme(project):
    run("git", "checkout", "-qb", "more-epochs", cwd=project)
    output = run("dvc", "exp", "run", "-S", "train.epochs=2", cwd=project).stdout
    assert stages_run(output) == {"environment", "train@0", "evaluate", "robustness"}
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    assert params["train"]["epochs"] == 2
    experiments = json.loads(run("dvc", "exp", "show", "--json", cwd=project).stdout)
    assert len(experiments[1]["experiments"]) == 1
    run("git", "add", "-A", cwd=project)
    run("git", "commit", "-qm", "more epochs", cwd=project)

    difference = json.loads(run("dvc", "params", "diff", "main", "--json", cwd=project).stdout)
    assert difference["params.yaml"] == {"train.epochs": {"old": 1, "new": 2, "diff": 1}}
    difference = json.loads(run("dvc", "metrics", "diff", "main", "--json", cwd=project).stdout)
    assert "loss" in difference.get("diff", difference)["metrics/evaluate.json"]

    for command in ("show", "diff main"):
        folder = project / f"page-{command.split()[0]}"
        run("dvc", "plots", *command.split(), "--out", str(folder), cwd=project)
        page = (folder / "index.html").read_text(encoding="utf-8")
        for title in ("Accuracy while training", "Loss while training", "Confusion matrix"):
            assert title in page
        pictures = {path.name.split("_plots_")[-1] for path in (folder / "static").glob("*.png")}
        assert {"mistakes.png", "predictions.png", "corruptions.png", "robustness.png"} <= pictures


def test_a_clone_compares_branches_without_a_dvc_remote(traced, tmp_path):
    """Metrics, plots and params are in Git, so a clone that has no data and no models has them."""
    clone = tmp_path / "clone"
    run("git", "clone", "-q", str(traced[0]), str(clone), cwd=tmp_path)
    metrics = json.loads(run("dvc", "metrics", "show", "--json", cwd=clone).stdout)
    assert metrics[""]["data"]["metrics/evaluate.json"]["data"]["dataset"] == "digits"
    run("dvc", "plots", "show", "--out", str(tmp_path / "page"), cwd=clone)
    assert "Confusion matrix" in (tmp_path / "page/index.html").read_text(encoding="utf-8")
