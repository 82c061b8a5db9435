"""The stage `package`: views, temperature, and the files that predict; independent mathematics."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, change_params, contents, packaged, run, run_stage
from scipy.special import softmax

from stages import package
from stages.base.stage import UserError
from stages.network import architecture, saved
from stages.network.runtime import keras
from stages.network.settings import Network
from stages.prediction import predict
from stages.prediction.export import exact
from stages.prediction.predict import PACKAGED, Predictor
from stages.prediction.views import averaged_logits


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_averaged_logits_are_those_of_the_image_and_its_four_shifts(shift):
    keras.utils.set_random_seed(0)
    model = architecture.stock(architecture.build(4, Network(crop=2, filters=[4, 8, 8])))
    images = np.random.default_rng(1).random((3, 28, 28, 1), np.float32)
    logits = keras.Model(model.input, model.get_layer("classifier").output)
    views = [images]
    for axis in (1, 2) if shift else ():
        for step in (-shift, shift):
            view = np.roll(images, step, axis)
            edge = slice(None, step) if step > 0 else slice(step, None)
            view[(slice(None),) * axis + (edge,)] = 0
            views.append(view)
    assert len(views) == (5 if shift else 1)
    expected = np.mean([logits.predict(view, verbose=0) for view in views], axis=0)
    found = averaged_logits(model, shift).predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_normalisations_of_the_exported_network_are_exact_to_the_last_bit():
    model = architecture.build(4, Network(crop=2, filters=[4, 8, 8]))
    gamma, beta, mean, variance = np.random.default_rng(0).uniform(0.1, 2, (4, 8)).astype("f4")
    model.get_layer("norm1").set_weights([gamma, beta, mean, variance])
    scale = gamma / np.sqrt(variance.astype(float) + 1e-5)
    inputs = np.random.default_rng(1).normal(size=(5, 6, 6, 8)).astype(np.float32)
    expected = inputs * np.float32(scale) + np.float32(beta - mean * scale)
    np.testing.assert_array_equal(exact(model).get_layer("norm1")(inputs), expected)


# --- The stage


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two small networks were trained and packaged, on digits."""
    return packaged(tmp_path_factory.mktemp("finished"), train__batch_size=128)


@pytest.fixture(autouse=True)
def _in_a_copy_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def images(split: str = "test") -> np.ndarray:
    return np.load(f"data/processed/{split}/images.npy")


def results() -> dict:
    return json.loads(Path("models/packaged/package.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("seed", [0, 3])
def test_both_files_predict_the_same_with_the_temperature_in_both(seed):
    probabilities, logits = Predictor(seed)(images())
    temperature = results()[str(seed)]["temperature"]
    assert temperature != 1
    expected = softmax(logits.astype(float) / temperature, axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    model = keras.saving.load_model(f"models/packaged/seed-{seed}.keras")
    last = [layer.name for layer in model.layers[-2:]]
    assert last == ["temperature", "calibrated_probabilities"]
    by_keras = model.predict(images(), verbose=0)
    np.testing.assert_allclose(probabilities, by_keras, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), by_keras.argmax(axis=1))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_results_are_accuracy_and_loss_of_the_file(split):
    labels = np.load(f"data/processed/{split}/labels.npy")
    probabilities, _ = Predictor(3)(images(split))
    found = results()["3"][split]
    assert found["accuracy"] == pytest.approx(np.mean(probabilities.argmax(1) == labels), abs=1e-6)
    of_label = probabilities[np.arange(len(labels)), labels]
    assert found["loss"] == pytest.approx(-np.log(of_label).mean(), abs=2e-5)


def test_the_headline_is_the_mean_of_the_networks():
    found = json.loads(Path("metrics/package.json").read_text(encoding="utf-8"))
    assert list(found) == ["train", "val", "val_loss"]
    for key, split, measure in (
        ("train", "train", "accuracy"),
        ("val", "validation", "accuracy"),
        ("val_loss", "validation", "loss"),
    ):
        of_networks = [results()[seed][split][measure] for seed in "03"]
        assert found[key] == pytest.approx(np.mean(of_networks), abs=5.1e-5)
        assert found[key] == round(found[key], 4)
        assert of_networks[0] != of_networks[1]


@pytest.mark.slow
def test_the_same_networks_give_the_same_bytes_alone_or_with_others(folder):
    before = contents(PACKAGED)
    shutil.rmtree(PACKAGED)
    run_stage(package.main, folder)
    assert contents(PACKAGED) == before
    shutil.rmtree(PACKAGED)
    change_params(folder, seeds=[3])
    printed = run_stage(package.main, folder)
    after = contents(PACKAGED)
    assert set(after) == {"package.json", "seed-3.keras", "seed-3.tflite"}
    assert all(after[name] == before[name] for name in ("seed-3.keras", "seed-3.tflite"))
    assert re.fullmatch(".*seed-0: removed.*\nseed 3: temperature .*\n", printed)
    assert [path.name for path in Path("models/trained").iterdir()] == ["seed-3"]


def test_without_validation_images_there_is_neither_temperature_nor_validation_result(folder):
    for name in ("images", "labels"):
        path = Path(f"data/processed/validation/{name}.npy")
        np.save(path, np.load(path)[:0])
    change_params(folder, seeds=[0])
    run_stage(package.main, folder)
    assert results()["0"]["temperature"] == 1
    assert "validation" not in results()["0"]
    assert [*json.loads(Path("metrics/package.json").read_text(encoding="utf-8"))] == ["train"]


def test_the_number_of_threads_changes_no_byte(monkeypatch):
    before = Predictor(0)(images())
    monkeypatch.setattr(predict, "THREADS", 1)
    np.testing.assert_array_equal(Predictor(0)(images()), before)


def test_predicting_does_not_import_tensorflow(folder):
    code = "import sys, stages.prediction.predict as p; p.Predictor(0)\n"
    code += "print([name for name in sys.modules if name.startswith(('tensorflow', 'keras'))])"
    found = run("python", "-c", code, cwd=folder, PYTHONPATH=str(ROOT))
    assert found.stdout == "[]\n"
    assert found.stderr == ""


@pytest.mark.parametrize("name", ["packaged/seed-0.tflite", "trained/seed-0/network.keras"])
def test_a_damaged_or_missing_file_is_named(name):
    path = Path("models") / name
    for content in (b"", b"no network", None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name} cannot be loaded .*dvc repro"):
            Predictor(0) if "packaged" in name else saved.load(path)


def test_a_network_with_code_in_it_or_in_the_old_format_is_refused(tmp_path):
    path = tmp_path / "network.keras"
    inputs = keras.Input((28, 28, 1))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs)).save(path)
    with pytest.raises(UserError, match="cannot be loaded"):
        saved.load(path)
    with h5py.File(path, "w") as file:  # can run code when it is loaded, whatever the safe mode
        file.attrs["model_config"] = "{}"
    with pytest.raises(UserError, match="cannot be loaded"):
        saved.load(path)
