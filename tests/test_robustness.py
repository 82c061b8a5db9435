"""The stage `robustness`, with a stand-in for the models."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_pictures import predicted, softmax

from stages import robustness
from stages.base.data import Split
from stages.base.settings import Robustness
from stages.report import scores
from stages.report.corruptions import MNIST_C, OTHERS, corrupt

SETTINGS = Robustness(images=50, seed=3)
COLOURS = ("black", "grey", "white")


def bars(channels: int) -> Split:
    """Images of three shades, of which a bar of noise is seen."""
    (test, _) = predicted(200, COLOURS, shape=(20, 24, channels))
    images = test.images // 8 + 90 * test.labels[:, None, None, None]
    return test._replace(images=images.astype(np.uint8))


def predict(images: np.ndarray) -> np.ndarray:
    """Probabilities of the three shades by an image's mean."""
    assert images.dtype == np.float32
    mean = images.mean(axis=(1, 2, 3))
    return softmax(-80 * (mean[:, None] - np.array([0.06, 0.41, 0.76])) ** 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_errors_are_those_of_the_corrupted_images(channels, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = bars(channels)
    robustness.robustness(test, predict, SETTINGS)
    frame = pd.read_csv("metrics/corruptions.csv", index_col="corruption")
    assert list(frame.index) == ["none", *MNIST_C, *OTHERS]
    chosen = np.random.default_rng(3).permutation(200)[:50]
    labels, images = test.labels[chosen], test.images[chosen] / np.float32(255)
    for name in ("none", "fog", "brightness", "canny_edges"):
        mean = predict(images if name == "none" else corrupt(images, name, 3))
        right = mean.argmax(axis=1) == labels
        row = frame.loc[name]
        assert (row["errors"], row["images"]) == ((~right).sum(), 50)
        assert row["error"] == pytest.approx((~right).mean(), abs=1e-5)
        kept = right[np.argsort(-mean.max(axis=1), kind="stable")]
        risks = [1 - kept[:number].mean() for number in range(1, 51)]
        assert row["aurc"] == pytest.approx(np.mean(risks), abs=1e-5)
        assert row["ece"] == pytest.approx(scores.calibration_error(labels, mean), abs=1e-5)
        interval = scores.wilson_interval(int(row["errors"]), 50)
        assert dict(row[["low", "high"]]) == pytest.approx(interval, abs=1e-5)
    assert frame["error"].nunique() > 2
    assert json.loads(Path("metrics/robustness.json").read_text(encoding="utf-8")) == {
        "corrupt": pytest.approx(frame["error"].iloc[1:17].mean(), abs=6e-5),
        "corrupted": "made, 50 images",
    }
    with Image.open("plots/robustness/corruptions.png") as picture:
        assert picture.width > 1000


def test_there_may_be_fewer_images_than_asked_for(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = robustness.robustness(bars(1), predict, Robustness(images=1000, seed=0))
    assert set(found["images"]) == {200}
