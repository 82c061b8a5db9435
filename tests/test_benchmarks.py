"""The benchmarks train as the pipeline does, with params that it has, and add up."""

import json
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, change_params, packaged, run

from benchmarks import bench, contenders
from stages.base import data
from stages.base.data import RAW
from stages.base.settings import Network, Train
from stages.dataset import digits
from stages.prediction.predict import Predictor

SCRIPTS = [
    path
    for folder in ("stages", "tools", "benchmarks", "apps/classify", "apps/draw")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "__main__" in path.read_text(encoding="utf-8")
]
PRESETS = sorted((ROOT / "presets").glob("*.txt"))
LINUX = pytest.mark.skipif(not Path("/proc").exists(), reason="memory is read from /proc")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_options_that_change_params(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    flags, options = (shlex.split(path.read_text())[start::2] for start in (0, 1))
    assert set(flags) == {"-S"}
    found = contenders.preset(path.stem)
    Train(**found["train"])
    for option in options:
        name, value = option.split("=")
        after = found
        for key in name.split("."):
            after = after[key]
        assert after == yaml.safe_load(value)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_says_how_it_is_used(path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("usage: ")


def test_multiply_adds_of_a_network_counted_by_hand():
    from stages.network import architecture  # here: TensorFlow takes seconds

    model = architecture.build((28, 28, 1), 10, Network(crop=2, filters=[3, 4, 5]))
    # Places × window × channels in × channels out, at 12×12, 12×12 and 6×6.
    forward = 144 * 25 * 3 + 144 * 9 * 3 * 4 + 36 * 9 * 4 * 5 + 5 * 10
    assert contenders.multiply_adds(model) == 3 * forward - 144 * 25 * 3


def test_the_committed_table_sums_up_the_committed_runs():
    kept = pd.read_csv(ROOT / "benchmarks/results/table.csv", index_col="contender")
    epochs = pd.read_csv(ROOT / "benchmarks/results/runs.csv")
    runs = {
        (name, seed): {"curve": run.to_dict("records"), "images": kept["images"][name]}
        for (name, seed), run in epochs.groupby(["contender", "seed"], sort=False)
    }
    found = bench.table(runs, np.zeros(10_000)).set_index("contender")
    pd.testing.assert_frame_equal(found, kept[found.columns], rtol=1e-4, check_dtype=False)


@pytest.mark.slow
def test_it_measures_each_contender_and_goes_on_where_it_stopped(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(packaged(tmp_path))
    names = ["notebook", "keras_example", "default"]
    finished = {"curve": 2 * [{"seconds": 7, "test_errors": 9}], "images": 1, "multiply_adds": 1}
    finished["corruptions"] = {"fog": 0.25, "shear": 0.05}
    kept = Path("results/unfinished")
    kept.mkdir(parents=True)
    for name, key in (("notebook", bench.fingerprint(epochs=2)), ("default", "of other code")):
        (kept / f"{name}-0.json").write_text(json.dumps(finished | {"key": key}))
    command = ["-m", "benchmarks.bench", "--seeds=1", "--epochs=2", "--output=results"]
    run("python", *command, "--contenders", *names, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert not kept.exists()
    epochs = pd.read_csv("results/runs.csv", index_col="contender")
    assert list(epochs["seconds"]["notebook"]) == [7, 7], "taken from the interrupted benchmark"
    assert (epochs.loc[names[1:]].groupby("contender")["seconds"].diff().dropna() > 0).all()
    # The same seed and params gave the pipeline's model: its errors are the packaged one's.
    test = data.load_split("test")
    errors = int((Predictor(0)(test.images)[0].argmax(axis=1) != test.labels).sum())
    assert epochs["test_errors"]["default"].iloc[-1] == errors
    table = pd.read_csv("results/table.csv", index_col="contender")
    assert (table["corrupted"]["notebook"], table["worst"]["notebook"]) == (15, 25)
    assert (table["worst"] > table["corrupted"]).all()
    default = table.loc["default"]
    assert default["averaged"] == pytest.approx(100 * (1 - errors / 360), abs=0.01)
    assert 0 < default["of_matrix_product"] < 1


@LINUX
@pytest.mark.slow
def test_scale_measures_both_stages_at_each_size(tmp_path: Path):
    for name in ("params.yaml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    change_params(tmp_path, download__dataset="digits")
    digits.write_digits(tmp_path / RAW)
    data.write_info(digits.INFO, tmp_path / RAW)
    (tmp_path / "space").mkdir()
    command = ("python", "-m", "benchmarks.scale", "--folder", "space", "--sizes", "3")
    run(*command, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert not list((tmp_path / "space").iterdir())
    table = pd.read_csv(tmp_path / "benchmarks/results/scale.csv")
    assert table["size"].tolist() == [1, 1, 3, 3]
    assert table["stage"].tolist() == ["preprocess", "train"] * 2
    # Batches of 256 leave the rest of the 1,437 training images out.
    assert table["images"].tolist() == [1797, 5 * 256, 3 * 1797, 16 * 256]
    assert (table[table["stage"] == "preprocess"]["peak_anonymous_mb"] < 300).all()
