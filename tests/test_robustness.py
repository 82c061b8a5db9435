"""The stage `robustness`, run on `digits` with two small networks."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import packaged, run_stage
from scipy import stats

from stages import robustness
from stages.prediction.predict import Predictor
from stages.report import scores
from stages.report.corruptions import MNIST_C, OTHERS, corrupt

OUTPUTS = ("metrics/robustness.json", "metrics/corruptions.csv", "plots/robustness/corruptions.png")
IMAGES = 50


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = packaged(
        tmp_path_factory.mktemp("finished"), train__batch_size=128, robustness__images=IMAGES
    )
    run_stage(robustness.main, folder)
    return folder


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics/corruptions.csv", index_col="corruption")


@pytest.mark.parametrize("name", ["none", "fog", "canny_edges"])
def test_errors_are_those_of_the_networks_on_the_corrupted_images(finished, name, monkeypatch):
    monkeypatch.chdir(finished)
    images = np.load("data/processed/test/images.npy")
    labels = np.load("data/processed/test/labels.npy")
    chosen = np.random.default_rng(0).permutation(len(labels))[:IMAGES]
    shown = images[chosen, :, :, 0]
    if name != "none":
        shown = corrupt(shown, name, 0)
    mean = sum(Predictor(seed)(shown[..., None])[0] for seed in (0, 3)) / 2
    errors = (mean.argmax(axis=1) != labels[chosen]).sum()
    row = table(finished).loc[name]
    assert row["errors"] == errors
    assert row["images"] == IMAGES
    confidence, right = mean.max(axis=1), mean.argmax(axis=1) == labels[chosen]
    kept = right[np.argsort(-confidence, kind="stable")]
    risks = [1 - kept[:number].mean() for number in range(1, IMAGES + 1)]
    assert row["aurc"] == pytest.approx(np.mean(risks), abs=1e-5)
    assert row["ece"] == pytest.approx(scores.calibration_error(labels[chosen], mean), abs=1e-5)
    assert row["error"] == pytest.approx(errors / IMAGES, abs=1e-5)
    interval = stats.binomtest(int(errors), IMAGES).proportion_ci(0.95, "wilson")
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), abs=1e-5)


def test_headline_is_the_mean_of_those_after_mnist_c(finished):
    frame = table(finished)
    assert list(frame.index) == ["none", *MNIST_C, *OTHERS]
    assert json.loads((finished / OUTPUTS[0]).read_text(encoding="utf-8")) == {
        "corrupt": pytest.approx(frame["error"].iloc[1:17].mean(), abs=6e-5)
    }
