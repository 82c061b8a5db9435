"""The stage `evaluate`: its numbers against hand computations, scikit-learn and numpy; its files by
`main` on `digits`. What is in the pictures: test_pictures.py.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import change_params, evaluated, run_stage
from matplotlib import image as png
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics

from stages.dataset import catalogue as datasets
from stages import evaluate
from stages.report import scores
from stages.base.stage import UserError
from stages.network.runtime import keras

PNGS = (
    "predictions",
    "mistakes",
    "uncertain",
    "confusion_matrix",
    "class_errors",
    "reliability",
    "confidence",
    "occlusion",
    "learning_curves",
)
DIGITS = datasets.DIGITS


# --- Numbers

# Four images of three classes; the third is never predicted, the fourth image is misread.
LABELS = np.array([0, 0, 1, 2])
PROBABILITIES = np.array(
    [[0.5, 0.25, 0.25], [0.8, 0.1, 0.1], [0.25, 0.5, 0.25], [0.75, 0.0, 0.25]], np.float32
)


def random_case(count: int = 300, classes: int = 10, seed: int = 0) -> tuple:
    """Labels, and float32 probabilities that are right about half of the time."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    weights = rng.random((count, classes)) ** 2 + 0.8 * np.eye(classes)[labels]
    return labels, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """By scikit-learn, which wants rows to sum to 1 more exactly than float32 can."""
    exact = probabilities.astype(np.float64)
    return sklearn_metrics.log_loss(labels, exact / exact.sum(axis=1, keepdims=True))


def test_report_of_a_case_computed_by_hand():
    report = scores.report(LABELS, PROBABILITIES, ("a", "b", "c"))
    approx = pytest.approx
    added = {"accuracy_95", "top2_accuracy", "brier_score", "calibration_error"}  # test_scores.py
    assert {key: report[key] for key in report if key not in added} == {
        "accuracy": 0.75,
        "errors": 1,
        "loss": approx((np.log(2) + np.log(1.25) + np.log(2) + np.log(4)) / 4, abs=1e-6),
        # Of three images called a, two are a; nothing is called c.
        "precision": {"macro": approx(5 / 9), "a": approx(2 / 3), "b": 1.0, "c": 0.0},
        "recall": {"macro": approx(2 / 3), "a": 1.0, "b": 1.0, "c": 0.0},
        "f1": {"macro": approx(0.6), "a": approx(0.8), "b": 1.0, "c": 0.0},
    }


def test_report_lists_classes_that_never_occur():
    report = scores.report(np.array([0, 1]), np.eye(4, dtype=np.float32)[:2], ("a", "b", "c", "d"))
    for name in ("precision", "recall", "f1"):
        assert report[name] == {"macro": 0.5, "a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0}


@pytest.mark.parametrize(("count", "classes"), [(300, 10), (40, 3), (12, 10)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_report_agrees_with_scikit_learn(count: int, classes: int):
    labels, probabilities = random_case(count, classes)
    predicted = probabilities.argmax(axis=1)
    names = tuple(f"class {number}" for number in range(classes))
    report = scores.report(labels, probabilities, names)
    assert report["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
    assert report["errors"] == round((1 - report["accuracy"]) * count)
    for name, function in (
        ("precision", sklearn_metrics.precision_score),
        ("recall", sklearn_metrics.recall_score),
        ("f1", sklearn_metrics.f1_score),
    ):
        options = {"labels": range(classes), "zero_division": 0}
        assert list(report[name]) == ["macro", *names]
        macro, *each = report[name].values()
        assert macro == pytest.approx(function(labels, predicted, average="macro", **options))
        assert each == pytest.approx(list(function(labels, predicted, average=None, **options)))


def test_loss_agrees_with_scikit_learn():
    labels, probabilities = random_case()
    loss = scores.accuracy_and_loss(labels, probabilities)["loss"]
    assert loss == pytest.approx(log_loss(labels, probabilities), abs=1e-6)


def test_loss_of_a_probability_of_zero_is_large_and_finite():
    probabilities = np.array([[1, 0], [1, 0]], np.float32)
    values = scores.accuracy_and_loss(np.array([0, 1], np.uint8), probabilities)
    assert values["accuracy"] == 0.5
    assert 20 < values["loss"] < 100


def test_evaluate_of_one_network_is_its_report():
    labels, probabilities = random_case()
    result, mean = evaluate.evaluate(labels, {5: probabilities}, DIGITS)
    assert result == scores.report(labels, probabilities, DIGITS)
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean, probabilities)


def test_evaluate_of_several_networks_scores_them_alone_and_together():
    labels, _ = random_case(classes=3)
    names = ("a", "b", "c")
    outputs = {}
    for seed in (4, 0, 9):
        rng = np.random.default_rng(seed)
        weights = rng.random((len(labels), 3)) + 0.3 * np.eye(3)[labels]
        outputs[seed] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    result, mean = evaluate.evaluate(labels, outputs, names)

    np.testing.assert_allclose(mean, (outputs[4] + outputs[0] + outputs[9]) / 3, atol=1e-6)
    wrong = [probabilities.argmax(axis=1) != labels for probabilities in outputs.values()]
    assert result.pop("errors_of_all_seeds") == (wrong[0] & wrong[1] & wrong[2]).sum()
    together = {key: result[key] for key in result if key not in ("mean", "std", "seeds")}
    assert together == scores.report(labels, mean, names)
    assert list(result["seeds"]) == ["4", "0", "9"]
    for seed, probabilities in outputs.items():
        assert result["seeds"][str(seed)] == scores.report(labels, probabilities, names)

    def values(*keys: str) -> np.ndarray:
        found = []
        for seed in ("4", "0", "9"):
            report = result["seeds"][seed]
            for key in keys:
                report = report[key]
            found.append(report)
        assert len(set(found)) > 1
        return np.array(found)

    for key in ("accuracy", "errors", "loss"):
        assert result["mean"][key] == pytest.approx(np.mean(values(key)))
        assert result["std"][key] == pytest.approx(np.std(values(key), ddof=1))
    for key in ("precision", "recall", "f1"):
        assert list(result["mean"][key]) == list(result["std"][key]) == ["macro", *names]
        for name in ("macro", *names):
            assert result["mean"][key][name] == pytest.approx(np.mean(values(key, name)))
            assert result["std"][key][name] == pytest.approx(np.std(values(key, name), ddof=1))


def test_json_is_rounded_ends_in_a_line_feed_and_keeps_names_readable(tmp_path: Path):
    path = tmp_path / "new" / "metrics.json"
    scores.write_json(path, {"n": 3, "x": 0.12345678, "sub": {"größe": 2 / 3}})
    assert path.read_text(encoding="utf-8") == (
        '{\n  "n": 3,\n  "x": 0.123457,\n  "sub": {\n    "größe": 0.666667\n  }\n}\n'
    )
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]


# --- The stage


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all four stages have run, with two small networks."""
    options = {"samples": 1, "mistakes": 5, "uncertain": 5}
    return evaluated(
        tmp_path_factory.mktemp("finished"),
        train__batch_size=128,
        **{f"evaluate__{key}": value for key, value in options.items()},
    )


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished` to change and run in."""
    return shutil.copytree(finished, tmp_path / "folder")


@pytest.fixture(scope="module")
def test_set(finished: Path) -> tuple[np.ndarray, np.ndarray]:
    processed = finished / "data/processed"
    return np.load(processed / "test_images.npy"), np.load(processed / "test_labels.npy")


@pytest.fixture(scope="module")
def outputs(finished: Path, test_set: tuple) -> dict[int, np.ndarray]:
    """Probabilities by seed, computed with Keras alone."""
    return {
        seed: keras.saving.load_model(finished / f"models/seed-{seed}.keras").predict(
            test_set[0], verbose=0
        )
        for seed in (0, 3)
    }


def results(folder: Path) -> dict:
    return json.loads((folder / "metrics/evaluate.json").read_text(encoding="utf-8"))


def written(folder: Path) -> dict[str, bytes]:
    """The outputs of the stage, by path."""
    paths = [*folder.glob("metrics/*.*"), *folder.glob("plots/*.*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def leaves(content: dict) -> Iterator:
    for value in content.values():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield value


def test_it_writes_numbers_tables_and_pictures(finished: Path):
    assert set(written(finished)) == {
        "metrics/evaluate.json",
        "metrics/confusion_matrix.csv",
        "plots/confusion.csv",
        *(f"plots/{name}.png" for name in PNGS),
    }


def test_json_holds_the_scores_of_the_saved_networks(
    finished: Path, test_set: tuple, outputs: dict[int, np.ndarray]
):
    content, labels = results(finished), test_set[1]
    mean = (outputs[0] + outputs[3]) / 2
    assert content["dataset"] == "digits"
    assert content["test_images"] == len(labels) == 360
    assert content["networks"] == 2
    assert content["errors"] == (mean.argmax(axis=1) != labels).sum()
    assert content["accuracy"] == pytest.approx(1 - content["errors"] / 360, abs=1e-6)
    assert content["loss"] == pytest.approx(log_loss(labels, mean), abs=2e-6)
    accuracies = []
    for seed, probabilities in outputs.items():
        accuracies.append(np.mean(probabilities.argmax(axis=1) == labels))
        of_seed = content["seeds"][str(seed)]
        assert of_seed["accuracy"] == pytest.approx(accuracies[-1], abs=1e-6)
    assert content["mean"]["accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert content["std"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1), abs=1e-6)
    assert min(accuracies) > 0.2  # they are no longer guessing
    assert content["accuracy"] < 1  # there are mistakes to be shown


def test_json_tells_the_calibration_error_without_temperatures(finished: Path, test_set: tuple):
    images, labels = test_set
    mean = 0
    for seed in (0, 3):
        model = keras.saving.load_model(finished / f"models/seed-{seed}.keras")
        averaged = keras.Model(model.inputs, model.get_layer("mean_logits").output)
        mean = mean + softmax(averaged.predict(images, verbose=0), axis=1) / 2
    content = results(finished)
    expected = scores.calibration_error(labels, mean)
    assert content["calibration_error_unscaled"] == pytest.approx(expected, abs=1e-5)
    assert content["calibration_error_unscaled"] != content["calibration_error"]


def test_json_holds_numbers_and_strings_alone(finished: Path):
    found = list(leaves(results(finished)))
    assert len(found) > 100
    assert {type(value) for value in found} == {int, float, str}


def test_confusion_matrix_counts_actual_by_predicted(
    finished: Path, test_set: tuple, outputs: dict[int, np.ndarray]
):
    path = finished / "metrics/confusion_matrix.csv"
    assert path.read_text(encoding="utf-8").startswith("actual,0,1,2,3,4,5,6,7,8,9\n0,")
    assert b"\r" not in path.read_bytes()
    counts = pd.read_csv(path, index_col="actual").to_numpy()
    expected = np.zeros((10, 10), int)
    predicted = (outputs[0] + outputs[3]).argmax(axis=1)
    for actual, prediction in zip(test_set[1], predicted, strict=True):
        expected[actual, prediction] += 1
    np.testing.assert_array_equal(counts, expected)
    assert not np.array_equal(counts, counts.T)  # else rows and columns could be swapped
    content = results(finished)
    assert np.trace(counts) / counts.sum() == pytest.approx(content["accuracy"], abs=1e-6)
    for label, row in enumerate(counts):
        recall = row[label] / row.sum()
        assert content["recall"][str(label)] == pytest.approx(recall, abs=1e-6)


def test_predictions_have_one_row_per_test_image(
    finished: Path, test_set: tuple, outputs: dict[int, np.ndarray]
):
    frame = pd.read_csv(finished / "plots/confusion.csv")
    assert list(frame.columns) == ["index", "actual", "predicted", "confidence"]
    assert list(frame["index"]) == list(range(360))
    assert list(frame["actual"]) == list(test_set[1])
    mean = (outputs[0] + outputs[3]) / 2
    assert list(frame["predicted"]) == list(mean.argmax(axis=1))
    np.testing.assert_allclose(frame["confidence"], mean.max(axis=1), atol=2e-6)
    content = results(finished)
    assert (frame["actual"] != frame["predicted"]).sum() == content["errors"]


@pytest.mark.parametrize("name", PNGS)
def test_pictures_are_wide_enough_and_not_blank(finished: Path, name: str):
    pixels = png.imread(finished / f"plots/{name}.png")
    assert pixels.shape[1] >= 600
    brightness = pixels[..., :3].mean(axis=2)
    assert (brightness < 0.5).mean() > 0.001
    halves = np.array_split(brightness, 2, axis=0) + np.array_split(brightness, 2, axis=1)
    assert all(half.min() < 0.5 < half.max() for half in halves)


@pytest.mark.slow
def test_a_second_run_writes_the_same_bytes(folder: Path):
    before = written(folder)
    for path in before:
        (folder / path).unlink()
    run_stage(evaluate.main, folder)
    assert written(folder) == before


@pytest.mark.slow
def test_a_seed_that_has_left_the_list_leaves_no_trace(folder: Path, outputs: dict):
    change_params(folder, train__seeds=[3])
    kept = [path for path in sorted(folder.rglob("*")) if "seed-3" in str(path) and path.is_file()]
    before = [path.read_bytes() for path in kept]
    other = folder / "models/notes.txt"
    other.write_text("not a network")
    printed = run_stage(evaluate.main, folder)
    assert "models/seed-0.keras: removed" in printed.replace("\\", "/")
    assert "plots/training/seed-0: removed" in printed.replace("\\", "/")
    assert {path.name for path in (folder / "models").iterdir()} == {"seed-3.keras", "notes.txt"}
    assert [path.name for path in (folder / "plots/training").iterdir()] == ["seed-3"]
    assert [path.read_bytes() for path in kept] == before
    content = results(folder)
    assert content["networks"] == 1
    assert not content.keys() & {"mean", "std", "seeds"}
    frame = pd.read_csv(folder / "plots/confusion.csv")
    assert list(frame["predicted"]) == list(outputs[3].argmax(axis=1))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("models/seed-3.keras", "dvc repro"),
        ("data/processed/test_images.npy", "dvc repro preprocess"),
        ("data/processed/test_labels.npy", "dvc repro preprocess"),
        ("plots/training/seed-3", "dvc repro --force train"),
    ],
)
def test_a_missing_input_is_refused_and_the_outputs_stay(folder: Path, name: str, command: str):
    for output in written(folder):
        (folder / output).write_text("of an earlier run")
    before = written(folder)
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError) as caught:
        run_stage(evaluate.main, folder)
    assert name in str(caught.value).replace("\\", "/")
    assert command in str(caught.value)
    assert "\n" not in str(caught.value)
    assert written(folder) == before
