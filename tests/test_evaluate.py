"""The stage `evaluate`: every number in its files is computed a second way, from predictions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import change_params, contents, packaged, run_stage
from scipy import special
from sklearn import metrics as sklearn_metrics
from test_scores import expected, flat

from stages import evaluate
from stages.base.stage import UserError
from stages.dataset import catalogue
from stages.prediction.predict import Predictor

CLASSES = tuple("0123456789")
DISPUTED = tuple(range(0, 360, 7))  # as if people doubted these labels


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all stages up to evaluate have run, with two small networks."""
    folder = packaged(
        tmp_path_factory.mktemp("finished"),
        train__batch_size=128,
        evaluate__samples=1,
        evaluate__misclassified=5,
    )
    doubted = catalogue.find("digits").model_copy(update={"disputed": DISPUTED})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "find", lambda name: doubted)
        run_stage(evaluate.main, folder)
    return folder


@pytest.fixture(scope="module")
def labels(finished: Path) -> np.ndarray:
    return np.load(finished / "data/processed/test/labels.npy")


@pytest.fixture(scope="module")
def outputs(finished: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Probabilities and logits by seed."""
    images = np.load(finished / "data/processed/test/images.npy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished)
        return {seed: Predictor(seed)(images) for seed in (0, 3)}


def load(folder: Path, name: str) -> dict:
    return json.loads((folder / "metrics" / name).read_text(encoding="utf-8"))


def written(folder: Path) -> dict[str, bytes]:
    """The outputs of the stage, by path."""
    files = contents(folder)
    return {path: files[path] for path in files if path.startswith(("metrics/", "plots/"))}


def of_predictions(labels, outputs) -> tuple[dict, dict]:
    """All that metrics files say of these outputs, computed a second way: headline, and details."""
    mean = (outputs[0][0].astype(float) + outputs[3][0]) / 2
    networks = {seed: expected(labels, outputs[seed][0], CLASSES) for seed in (0, 3)}
    headline = expected(labels, mean, CLASSES, DISPUTED)
    details = dict(headline)
    for key in networks[0].keys() - {"undisputed"}:
        details |= {f"seeds.{seed}.{key}": networks[seed][key] for seed in (0, 3)}
    unscaled = sum(special.softmax(outputs[seed][1].astype(float), axis=1) for seed in (0, 3)) / 2
    ece = expected(labels, unscaled, CLASSES)["ece"]
    details |= {"images": len(labels), "ece_unscaled": ece}
    accuracies = [networks[seed]["accuracy"] for seed in (0, 3)]
    headline |= {"mean": np.mean(accuracies), "std": np.std(accuracies, ddof=1)}
    return headline, details


def test_every_number_in_the_metrics_is_that_of_the_predictions(finished, labels, outputs):
    """A number without its second computation in `of_predictions` fails."""
    headline, details = of_predictions(labels, outputs)
    keys = ["accuracy", "loss", "ece", "mean", "std"]
    found = load(finished, "evaluate.json")
    assert found == pytest.approx({key: headline[key] for key in keys}, abs=1.01e-4)
    scores = dict(flat(load(finished, "details/scores.json")))
    assert scores.pop("dataset") == "digits"
    assert scores == pytest.approx(details, abs=1.01e-5)
    assert 0.2 < found["accuracy"] < 1, "the networks have learnt, and not everything"
    assert headline["undisputed"] != headline["accuracy"]
    table = pd.read_csv(finished / "metrics/details/headline.csv", index_col="measure")["value"]
    assert table.to_dict() == {
        "dataset": "digits, 360 test images",
        "accuracy": f"{headline['accuracy']:.2%}".replace("%", " %"),
        "95 % interval": "{:.2f} % to {:.2f} %".format(
            *(100 * headline[f"accuracy_95.{end}"] for end in ("low", "high"))
        ),
        "errors": str(headline["errors"]),
        "loss": f"{headline['loss']:.4f} nats",
        "calibration error (ece)": f"{100 * headline['ece']:.2f} points",
    }


def test_tables_agree_with_each_other_and_with_the_networks(finished, labels, outputs):
    predictions = pd.read_csv(finished / "metrics/details/predictions.csv")
    mean = (outputs[0][0] + outputs[3][0]) / 2
    assert list(predictions["index"]) == list(range(360))
    assert list(predictions["actual"]) == list(labels)
    assert list(predictions["predicted"]) == list(mean.argmax(axis=1))
    np.testing.assert_allclose(predictions["confidence"], mean.max(axis=1), atol=6e-5)
    wrong = predictions[predictions["actual"] != predictions["predicted"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv(finished / "metrics/misclassified.csv"), wrong)
    assert len(wrong) == load(finished, "details/scores.json")["errors"]
    path = finished / "metrics/details/confusion_matrix.csv"
    counts = pd.read_csv(path, index_col="actual").to_numpy()
    np.testing.assert_array_equal(
        counts, sklearn_metrics.confusion_matrix(labels, mean.argmax(axis=1), labels=range(10))
    )
    assert not np.array_equal(counts, counts.T), "else rows and columns could be swapped"


def test_one_network_has_neither_mean_nor_deviation(folder: Path, outputs):
    change_params(folder, seeds=[3])
    run_stage(evaluate.main, folder)
    found = load(folder, "evaluate.json")
    assert not found.keys() & {"mean", "std"}
    assert found["errors"] == load(folder, "details/scores.json")["errors"]
    assert "seeds" not in load(folder, "details/scores.json")
    predictions = pd.read_csv(folder / "metrics/details/predictions.csv")
    assert list(predictions["predicted"]) == list(outputs[3][0].argmax(axis=1))


@pytest.mark.parametrize(
    "name", ["models/packaged/seed-3.tflite", "models/trained/seed-3/curves.csv"]
)
def test_a_missing_input_is_refused_and_the_outputs_stay(folder: Path, name: str):
    for output in written(folder):
        (folder / output).write_text("of an earlier run")
    before = written(folder)
    (folder / name).unlink()
    with pytest.raises((UserError, FileNotFoundError), match=name):
        run_stage(evaluate.main, folder)
    assert written(folder) == before
