"""The stage `evaluate`: its files, run on `digits` with two small networks.

The scores themselves are tested in test_scores.py, the pictures in test_pictures.py. Here every
number is computed a second way, from the predictions as they were written.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import change_params, packaged, run_stage
from scipy import special, stats
from sklearn import metrics as sklearn_metrics

from stages import evaluate
from stages.base.stage import UserError
from stages.prediction.predict import Predictor
from stages.report import scores

PICTURES = ("confusion_matrix", "learning_curves", "misclassified", "predictions", "reliability")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages up to evaluate have run, with two small networks."""
    folder = packaged(
        tmp_path_factory.mktemp("finished"),
        train__batch_size=128,
        evaluate__samples=1,
        evaluate__misclassified=5,
    )
    run_stage(evaluate.main, folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished` to change and run in."""
    return shutil.copytree(finished, tmp_path / "folder")


@pytest.fixture(scope="module")
def labels(finished: Path) -> np.ndarray:
    return np.load(finished / "data/processed/test/labels.npy")


@pytest.fixture(scope="module")
def outputs(finished: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Probabilities and logits by seed."""
    images = np.load(finished / "data/processed/test/images.npy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished)
        return {seed: Predictor(seed, 10)(images) for seed in (0, 3)}


def load(folder: Path, name: str) -> dict:
    return json.loads((folder / "metrics" / name).read_text(encoding="utf-8"))


def written(folder: Path) -> dict[str, bytes]:
    """The outputs of the stage, by path."""
    paths = [*(folder / "metrics").rglob("*.*"), *(folder / "plots").rglob("*.*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_it_writes_numbers_tables_and_pictures(finished: Path):
    assert set(written(finished)) == {
        "metrics/evaluate.json",
        "metrics/misclassified.csv",
        "metrics/details/scores.json",
        "metrics/details/headline.csv",
        "metrics/details/confusion_matrix.csv",
        "metrics/details/predictions.csv",
        *(f"plots/evaluate/{name}.png" for name in PICTURES),
    }


def test_every_headline_number_is_that_of_the_predictions(finished, labels, outputs):
    headline = load(finished, "evaluate.json")
    mean = (outputs[0][0].astype(float) + outputs[3][0]) / 2
    correct = mean.argmax(axis=1) == labels
    accuracies = [np.mean(outputs[seed][0].argmax(axis=1) == labels) for seed in (0, 3)]
    results = json.loads((finished / "models/packaged/package.json").read_text(encoding="utf-8"))
    order = np.argsort(mean.max(axis=1), kind="stable")
    gaps = [abs((mean.max(axis=1) - correct)[part].sum()) for part in np.array_split(order, 15)]
    expected = {
        "accuracy": correct.mean(),
        "errors": (~correct).sum(),
        "loss": sklearn_metrics.log_loss(labels, mean / mean.sum(axis=1, keepdims=True)),
        "ece": sum(gaps) / 360,
        "train": np.mean([results[seed]["train"]["accuracy"] for seed in "03"]),
        "val": np.mean([results[seed]["validation"]["accuracy"] for seed in "03"]),
        "mean": np.mean(accuracies),
        "std": np.std(accuracies, ddof=1),
    }
    assert headline.keys() == expected.keys(), "a new metric needs its check here"
    for key, value in expected.items():
        assert headline[key] == pytest.approx(value, abs=6e-6), key
    assert 0.2 < headline["accuracy"] < 1, "the networks have learnt, and not everything"


def test_details_tell_intervals_and_what_each_network_does(finished, labels, outputs):
    details = load(finished, "details/scores.json")
    correct = details["accuracy"] * 360
    interval = stats.binomtest(round(correct), 360).proportion_ci(0.95, "wilson")
    assert details["accuracy_95"]["low"] == pytest.approx(interval.low, abs=1e-6)
    assert details["accuracy_95"]["high"] == pytest.approx(interval.high, abs=1e-6)
    predicted = {seed: outputs[seed][0].argmax(axis=1) for seed in (0, 3)}
    for seed in (0, 3):
        accuracy = np.mean(predicted[seed] == labels)
        assert details["seeds"][str(seed)]["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    both = (predicted[0] != labels) & (predicted[3] != labels)
    assert details["errors_of_all_seeds"] == both.sum()
    assert (details["dataset"], details["images"]) == ("digits", 360)
    logits = [special.softmax(outputs[seed][1].astype(float), axis=1) for seed in (0, 3)]
    assert details["ece_unscaled"] == pytest.approx(
        scores.calibration_error(labels, sum(logits) / 2), abs=1e-5
    )


def test_tables_agree_with_each_other_and_with_the_networks(finished, labels, outputs):
    predictions = pd.read_csv(finished / "metrics/details/predictions.csv")
    mean = (outputs[0][0] + outputs[3][0]) / 2
    assert list(predictions["index"]) == list(range(360))
    assert list(predictions["actual"]) == list(labels)
    assert list(predictions["predicted"]) == list(mean.argmax(axis=1))
    np.testing.assert_allclose(predictions["confidence"], mean.max(axis=1), atol=6e-5)
    wrong = predictions[predictions["actual"] != predictions["predicted"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv(finished / "metrics/misclassified.csv"), wrong)
    assert len(wrong) == load(finished, "evaluate.json")["errors"]
    path = finished / "metrics/details/confusion_matrix.csv"
    counts = pd.read_csv(path, index_col="actual").to_numpy()
    np.testing.assert_array_equal(
        counts, sklearn_metrics.confusion_matrix(labels, mean.argmax(axis=1), labels=range(10))
    )
    assert not np.array_equal(counts, counts.T), "else rows and columns could be swapped"


@pytest.mark.slow
def test_a_second_run_writes_the_same_bytes(folder: Path):
    before = written(folder)
    for path in before:
        (folder / path).unlink()
    run_stage(evaluate.main, folder)
    assert written(folder) == before


def test_one_network_has_neither_mean_nor_deviation(folder: Path, outputs):
    change_params(folder, seeds=[3])
    run_stage(evaluate.main, folder)
    assert not load(folder, "evaluate.json").keys() & {"mean", "std"}
    assert not load(folder, "details/scores.json").keys() & {"mean", "std", "seeds"}
    predictions = pd.read_csv(folder / "metrics/details/predictions.csv")
    assert list(predictions["predicted"]) == list(outputs[3][0].argmax(axis=1))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("models/packaged/seed-3.tflite", "dvc repro"),
        ("data/processed/test/images.npy", "dvc repro preprocess"),
        ("models/trained/seed-3/curves.csv", "dvc repro"),
    ],
)
def test_a_missing_input_is_refused_and_the_outputs_stay(folder: Path, name: str, command: str):
    for output in written(folder):
        (folder / output).write_text("of an earlier run")
    before = written(folder)
    (folder / name).unlink()
    with pytest.raises((UserError, FileNotFoundError)) as caught:
        run_stage(evaluate.main, folder)
    assert name in str(caught.value).replace("\\", "/")
    if caught.type is UserError:
        assert command in str(caught.value)
    assert written(folder) == before


def test_a_network_of_another_number_of_classes_is_refused(folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"seed-0.tflite: expected 2 classes, found 10"):
        Predictor(0, 2)
