"""The benchmark runs the pipeline's own training, and presets are params that the pipeline has."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT, copy_project, evaluated, run

from benchmarks import contenders
from stages.base.params import Params

PRESETS = sorted((ROOT / "presets").glob("*.txt"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_options_that_change_params(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    flags, options = (shlex.split(path.read_text())[start::2] for start in (0, 1))
    assert set(flags) == {"-S"}
    default = Params.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text()))
    found = contenders.preset(path.stem)
    for option in options:
        name, value = option.split("=")
        before, after = default, found
        for key in name.split("."):
            before, after = getattr(before, key), getattr(after, key)
        assert after == yaml.safe_load(value) != before


def test_multiply_adds_of_a_network_counted_by_hand():
    from stages.network import architecture as network
    from stages.base.params import Network

    model = network.build(10, Network(crop=2, filters=[3, 4, 5]))
    # Places × window × channels in × channels out, at 12×12, 12×12 and 6×6.
    forward = 144 * 25 * 3 + 144 * 9 * 3 * 4 + 36 * 9 * 4 * 5 + 5 * 10
    assert contenders.multiply_adds(model) == 3 * forward - 144 * 25 * 3


@pytest.mark.slow
def test_it_measures_each_contender_and_the_pipelines_own_network(tmp_path: Path):
    folder = evaluated(tmp_path)
    names = ["notebook", "keras_example", "fast", "default"]
    command = ["-m", "benchmarks.bench", "--seeds=1", "--epochs=2", "--output=results"]
    command += ["--contenders", *names]
    # Interrupted, it goes on with what it had found, and with nothing of another state.
    kept = folder / "results/unfinished"
    started = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    while not list(kept.glob("*.json")):
        assert started.poll() is None
        time.sleep(0.1)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    (first,) = kept.glob("*.json")
    before = json.loads(first.read_text())["curve"][-1]["seconds"]
    (kept / f"{names[-1]}-0.json").write_text(json.dumps({"key": "of other code"}))

    printed = run("python", *command, cwd=folder, PYTHONPATH=str(ROOT)).stdout
    assert "1 of 4 runs" in printed
    assert not kept.exists()
    assert "\r" not in printed
    epochs = pd.read_csv(folder / "results/runs.csv")
    assert list(epochs["contender"]) == [name for name in names for _ in range(2)]
    of_first = epochs[epochs["contender"] == first.stem.removesuffix("-0")]
    assert of_first["seconds"].iloc[-1] == pytest.approx(before, abs=1e-3)
    for _, run_of_one in epochs.groupby("contender"):
        assert list(run_of_one["epoch"]) == [1, 2]
        assert 0 < run_of_one["seconds"].iloc[0] < run_of_one["seconds"].iloc[1]
    table = pd.read_csv(folder / "results/table.csv", index_col="contender")
    # The same seed and params gave the pipeline's network: its errors are those of evaluate.
    errors = json.loads((folder / "metrics/evaluate.json").read_text())["seeds"]["0"]["errors"]
    of_default = epochs[epochs["contender"] == "default"]
    assert of_default["test_errors"].iloc[-1] == errors
    assert table.loc["default", "accuracy"] == pytest.approx(100 * (1 - errors / 360), abs=0.01)
    assert table.loc["default", "averaged"] == pytest.approx(table.loc["default", "accuracy"])
    assert table.loc["notebook", "of_notebook"] == 1
    assert 0 < table.loc["default", "of_matrix_product"] < 1
    assert (folder / "results/error_against_seconds.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_preset_runs_as_an_experiment(tmp_path: Path):
    folder = copy_project(tmp_path / "project")
    shutil.copytree(ROOT / "presets", folder / "presets")
    options = shlex.split((folder / "presets/fast.txt").read_text())
    run("dvc", "exp", "run", *options, cwd=folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for option in options[1::2]:
        name, value = option.split("=")
        found = params
        for key in name.split("."):
            found = found[key]
        assert found == yaml.safe_load(value)
