"""The stage `evaluate`: every number in its files is computed a second way, from predictions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_pictures import Data, curves, predicted, softmax
from test_scores import calibration_error_by_loops, expected, flat, without_intervals

from stages import evaluate
from stages.base import data, params
from stages.base.settings import Evaluate
from stages.base.stage import UserError
from stages.report import style

CLASSES = ("ant", "bee", "cat", "dog")
SETTINGS = Evaluate(samples=1, misclassified=5, seed=0)
FILES = [f"{number}, 'a file'.png" for number in range(1000, 1320)]
PICTURES = {"confusion_matrix", "learning_curves", "misclassified", "predictions", "reliability"}


def predictions_of(made: Data, seeds: int) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Of some models, each worse than the one before, and their mean."""
    rng, each = np.random.default_rng(1), {}
    for seed in range(seeds):
        noise = seed * rng.normal(size=made.probabilities.shape)
        each[seed] = softmax(np.log(made.probabilities) + noise)
    return each, np.mean(list(each.values()), axis=0)


def run(folder: Path, made: Data, seeds: int = 1, files: list[str] | None = None) -> None:
    """Evaluate made-up predictions in `folder`."""
    each, mean = predictions_of(made, seeds)
    (folder / "data/processed/test").mkdir(parents=True, exist_ok=True)
    if files:
        (folder / evaluate.FILES).write_text(json.dumps(files))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        evaluate.evaluate(made.test, each, mean, mean**2, curves(3, seeds), SETTINGS)


def load(folder: Path, name: str) -> dict:
    return json.loads((folder / "metrics" / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made() -> Data:
    """200 images in shuffled order, the last class with a quarter of the images of the others."""
    (test, probabilities) = predicted(320, CLASSES, 2, disputed=(1003, 1100, 5000))
    kept = np.flatnonzero((test.labels < 3) | (np.arange(320) % 4 == 0))[:200]
    order = np.random.default_rng(0).permutation(kept)
    test = test._replace(
        images=test.images[order], labels=test.labels[order], numbers=test.numbers[order]
    )
    return Data(test, probabilities[order])


@pytest.fixture(scope="module")
def folder(made: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two models have been evaluated, on images that have file names."""
    folder = tmp_path_factory.mktemp("evaluated")
    run(folder, made, 2, [FILES[number - 1000] for number in made.test.numbers])
    return folder


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib draws nothing: it takes a second."""
    monkeypatch.setattr(style, "chart", lambda title, _, note: style.page(title, (0, 0), note)[0])


def test_every_number_in_the_metrics_is_that_of_the_predictions(made: Data, folder: Path):
    """A number without its second computation fails."""
    each, mean = predictions_of(made, 2)
    labels, numbers = made.test.labels, list(made.test.numbers)
    disputed = tuple(numbers.index(number) for number in (1003, 1100) if number in numbers)
    headline = expected(labels, mean, CLASSES, disputed)
    keys = ["accuracy", "errors", "undisputed", "loss", "ece", "balanced_accuracy", "macro_f1"]
    written = load(folder, "evaluate.json")
    assert written.pop("dataset") == "made"
    facts = {"images": 200, "disputed": len(disputed)}
    for key in ("balanced_accuracy_95", "macro_f1_95"):
        assert written.pop(key).keys() == {"low", "high"}
    assert written == pytest.approx(facts | {key: headline[key] for key in keys}, abs=1e-4)
    assert headline["undisputed"] != headline["accuracy"] != headline["balanced_accuracy"]

    details = without_intervals(dict(flat(load(folder, "details/scores.json"))))
    of_seeds = {seed: expected(labels, each[seed], CLASSES) for seed in (0, 1)}
    rows = (mean**2).tolist()
    unscaled = calibration_error_by_loops(rows, list(mean.argmax(axis=1) == labels))
    second = {"images": 200, "ece_unscaled": unscaled}
    for prefix, values in (("", headline), ("seeds.0.", of_seeds[0]), ("seeds.1.", of_seeds[1])):
        second |= {f"{prefix}{key}": values[key] for key in values if key != "undisputed"}
    assert details.pop("dataset") == "made"
    assert details == pytest.approx(second, abs=1e-5)
    accuracies = [of_seeds[seed]["accuracy"] for seed in (0, 1)]
    spread = {"mean": np.mean(accuracies), "std": np.std(accuracies, ddof=1)}
    assert load(folder, "seeds.json") == pytest.approx({"seeds": 2} | spread, abs=1e-4)

    table = pd.read_csv(folder / "metrics/headline.csv", index_col="measure")["value"]
    ends = [f"{100 * headline[f'accuracy_95.{end}']:.2f} %" for end in ("low", "high")]
    assert table["dataset"] == "made, 200 test images"
    assert table["accuracy"] == f"{100 * headline['accuracy']:.2f} %"
    assert table["95 % interval"] == " to ".join(ends)
    assert table["errors"] == str(headline["errors"])
    assert table["loss"] == f"{headline['loss']:.4f} nats"
    assert table["calibration error (ece)"] == f"{100 * headline['ece']:.2f} points"
    assert table["balanced accuracy"].startswith(f"{100 * headline['balanced_accuracy']:.2f} % (")
    alone = f"{100 * spread['mean']:.2f} % ± {100 * spread['std']:.2f} points"
    assert table["each seed alone"] == alone


def test_tables_agree_with_each_other_and_with_the_predictions(made: Data, folder: Path):
    _, mean = predictions_of(made, 2)
    labels, order = made.test.labels, np.argsort(made.test.numbers)
    predictions = pd.read_csv(folder / "metrics/details/predictions.csv")
    assert list(predictions["index"]) == sorted(made.test.numbers)
    assert list(predictions["actual"]) == [CLASSES[label] for label in labels[order]]
    assert list(predictions["predicted"]) == [CLASSES[c] for c in mean.argmax(axis=1)[order]]
    np.testing.assert_allclose(predictions["confidence"], mean.max(axis=1)[order], atol=6e-5)
    assert list(predictions["file"]) == [FILES[number - 1000] for number in predictions["index"]]
    wrong = predictions[predictions["actual"] != predictions["predicted"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "metrics/misclassified.csv"), wrong)
    assert len(wrong) == load(folder, "evaluate.json")["errors"] > 0
    counts = pd.read_csv(folder / "metrics/confusion_matrix.csv", index_col="actual")
    assert list(counts.columns) == list(counts.index) == list(CLASSES)
    crossed = pd.crosstab(predictions["actual"], predictions["predicted"])
    pd.testing.assert_frame_equal(counts, crossed, check_names=False)
    assert not np.array_equal(counts, counts.T), "else rows and columns could be swapped"
    assert {path.stem for path in (folder / "plots/evaluate").iterdir()} == PICTURES


def test_metrics_have_the_same_keys_for_any_number_of_seeds(
    made: Data, folder: Path, tmp_path: Path, no_charts
):
    run(tmp_path, made)
    assert list(load(tmp_path, "evaluate.json")) == list(load(folder, "evaluate.json"))
    assert load(tmp_path, "seeds.json").keys() == {"seeds", "mean"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("classes", "shape", "absent"),
    [
        (("ant", "bee"), (17, 40, 3), 1),
        (("$x$", "日本語", 'a "quoted", name', *map(str, range(27))), (16, 20, 1), 0),
    ],
)
def test_any_number_of_classes_and_any_shape(classes, shape, absent, tmp_path: Path):
    made = predicted(60, classes, 2, shape, disputed=())
    labels = made.test.labels.copy()
    labels[labels == absent] = 1 if absent == 0 else 0
    run(tmp_path, Data(made.test._replace(labels=labels), made.probabilities))
    counts = pd.read_csv(tmp_path / "metrics/confusion_matrix.csv", index_col="actual")
    assert list(counts.columns) == list(counts.index) == list(classes)
    assert counts.to_numpy().sum() == 60
    for name in PICTURES:
        with Image.open(tmp_path / f"plots/evaluate/{name}.png") as picture:
            assert min(picture.size) > 100


class Predictor:
    """In place of a packaged model: says which class each image is, the label or the next."""

    def __init__(self, labels: np.ndarray, wrong: int):
        self.logits = (
            5 * np.eye(4, dtype=np.float32)[(labels + (np.arange(len(labels)) < wrong)) % 4]
        )

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert images.dtype == np.uint8
        return softmax(self.logits), self.logits


class Ensemble:
    """In place of packaged models: the first of two is wrong for 6 images, the second for 2."""

    def __init__(self, seeds: list[int]):
        labels = np.load("data/processed/test/labels.npy")
        self.predictors = [Predictor(labels, wrong) for wrong in (6, 2)[: len(seeds)]]

    def mean(self, probabilities: list[np.ndarray]) -> np.ndarray:
        return np.mean(probabilities, axis=0) * [1.001, 1, 1, 1]


@pytest.fixture
def project(made: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with test images, learning curves and params of two seeds."""
    root = Path(evaluate.__file__).parents[1]
    text = (root / params.PARAMS).read_text(encoding="utf-8")
    assert text.count("seeds:\n- 0\n") == 1
    (tmp_path / params.PARAMS).write_text(text.replace("- 0\n", "- 0\n- 3\n", 1), encoding="utf-8")
    folder = tmp_path / data.PROCESSED / "test"
    folder.mkdir(parents=True)
    for name in ("images", "labels", "numbers"):
        np.save(folder / f"{name}.npy", getattr(made.test, name))
    data.write_info(made.test.info, folder)
    for seed, frame in zip((0, 3), curves(3, 2).values(), strict=True):
        path = tmp_path / data.curves_of(seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "Ensemble", Ensemble)
    return tmp_path


def test_stage_scores_each_model_and_all_together(project: Path, no_charts, capsys):
    evaluate.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["seed 0: accuracy 97.00 %", "seed 3: accuracy 99.00 %"]
    found = load(project, "evaluate.json")
    errors, accuracy = found["errors"], f"{100 * found['accuracy']:.2f} %"
    assert lines[2].startswith(f"made, 200 test images: {errors} errors, accuracy {accuracy}; see")
    assert (project / lines[2].split()[-1]).read_text(encoding="utf-8").startswith("<!DOCTYPE")
    assert 2 <= found["errors"] <= 6
    assert load(project, "seeds.json")["mean"] == 0.98
    unscaled = np.mean([softmax(each.logits) for each in Ensemble([0, 3]).predictors], axis=0)
    correct = unscaled.argmax(axis=1) == np.load("data/processed/test/labels.npy")
    second = calibration_error_by_loops(unscaled.tolist(), list(correct))
    assert load(project, "details/scores.json")["ece_unscaled"] == pytest.approx(second, abs=1e-5)


@pytest.mark.parametrize("name", ["data/processed/test/labels.npy", "models/curves/seed-3.csv"])
def test_a_missing_input_is_refused_and_the_outputs_stay(project: Path, name: str):
    outputs = [evaluate.METRICS, evaluate.CONFUSION, evaluate.PLOTS / "predictions.png"]
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("of an earlier run")
    (project / name).unlink()
    with pytest.raises((UserError, FileNotFoundError), match=name):
        evaluate.main()
    found = [file for kind in ("metrics", "plots") for file in Path(kind).rglob("*.*")]
    assert sorted(found) == sorted(outputs)
    assert {output.read_text() for output in outputs} == {"of an earlier run"}


def test_accuracy_without_pictures_that_training_had_is_told(tmp_path, made, no_charts):
    seen = np.arange(len(made.test.labels)) % 3 == 0
    (tmp_path / evaluate.SEEN).parent.mkdir(parents=True)
    for marked in (seen, seen | True):
        np.save(tmp_path / evaluate.SEEN, marked)
        run(tmp_path, made)
        found = load(tmp_path, "evaluate.json")
        assert found.get("seen", 0) == marked.sum()
        if 0 < marked.sum() < len(marked):
            each = zip(made.probabilities, made.test.labels, marked, strict=True)
            right = [scores.argmax() == label for scores, label, mark in each if not mark]
            assert found["unseen"] == pytest.approx(sum(right) / len(right), abs=1e-6)
        else:
            assert "unseen" not in found
