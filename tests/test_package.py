"""The stage `package`: views, temperature, and the files that predict; independent mathematics."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import contents, packaged, run_stage
from scipy.special import softmax

from stages import package
from stages.base.settings import Network
from stages.base.stage import UserError
from stages.network import architecture, saved
from stages.network.runtime import keras
from stages.prediction import predict
from stages.prediction.export import portable
from stages.prediction.predict import PACKAGED, Ensemble, Predictor
from stages.prediction.views import averaged_logits


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_averaged_logits_are_those_of_the_image_and_its_four_shifts(shift):
    keras.utils.set_random_seed(0)
    model = architecture.with_keras_layers(
        architecture.build((28, 28, 1), 4, Network(crop=2, filters=[4, 8, 8]))
    )
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
    expected = np.mean([logits([view]) for view in views], axis=0)
    found = averaged_logits(model, shift).predict_on_batch(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_normalisations_of_the_exported_network_are_exact_to_the_last_bit():
    model = architecture.build((28, 28, 1), 4, Network(crop=2, filters=[4, 8, 8]))
    gamma, beta, mean, variance = np.random.default_rng(0).uniform(0.1, 2, (4, 8)).astype("f4")
    model.get_layer("norm1").set_weights([gamma, beta, mean, variance])
    scale = gamma / np.sqrt(variance.astype(float) + 1e-5)
    inputs = np.random.default_rng(1).normal(size=(5, 6, 6, 8)).astype(np.float32)
    expected = inputs * np.float32(scale) + np.float32(beta - mean * scale)
    np.testing.assert_array_equal(portable(model).get_layer("norm1")(inputs), expected)


# --- The stage


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small model was trained and packaged, on digits."""
    return packaged(tmp_path_factory.mktemp("finished"))


@pytest.fixture(autouse=True)
def _in_a_copy_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def images(split: str = "test") -> np.ndarray:
    return np.load(f"data/processed/{split}/images.npy") / np.float32(255)


def headline() -> dict:
    return json.loads(Path("metrics/package/seed-0.json").read_text(encoding="utf-8"))


def test_both_files_predict_the_same_with_the_temperature_in_both():
    probabilities, logits = Predictor(0)(images())
    temperature = Predictor(0).temperature
    assert temperature != 1
    expected = softmax(logits.astype(float) / temperature, axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    model = keras.saving.load_model(PACKAGED / "seed-0/model.keras")
    last = [layer.name for layer in model.layers[-2:]]
    assert last == ["temperature", "calibrated_probabilities"]
    by_keras = model([images()]).numpy()
    np.testing.assert_allclose(probabilities, by_keras, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), by_keras.argmax(axis=1))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_headline_is_accuracy_and_loss_of_the_file(split):
    labels = np.load(f"data/processed/{split}/labels.npy")
    probabilities, _ = Predictor(0)(images(split))
    accuracy = np.mean(probabilities.argmax(1) == labels)
    found = headline()
    assert list(found) == ["train", "val", "val_loss"]
    assert found["train" if split == "train" else "val"] == pytest.approx(accuracy, abs=1e-4)
    if split == "validation":
        loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
        assert found["val_loss"] == pytest.approx(loss, abs=1e-4)


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes(folder):
    before = contents(PACKAGED)
    shutil.rmtree(PACKAGED)
    said = run_stage(package.main, folder, "--seed", "0")
    assert contents(PACKAGED) == before
    assert len(said.splitlines()) > 3  # what takes minutes with large images says what it is doing


def test_without_validation_images_nothing_is_calibrated(folder, monkeypatch):
    for name in ("export", "export_int8"):  # takes seconds, and the files are there
        monkeypatch.setattr(package, name, lambda *_: None)
    for name in ("images", "labels", "numbers"):
        path = Path(f"data/processed/validation/{name}.npy")
        np.save(path, np.load(path)[:0])
    run_stage(package.main, folder, "--seed", "0")
    assert Predictor(0).temperature == 1
    assert list(headline()) == ["train"]
    probabilities, accepted = Ensemble([0])(images())
    assert probabilities.shape == (len(accepted), 10)


def test_what_shows_nothing_known_is_not_accepted():
    model = Ensemble([0])
    known = model(images())[1].mean()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, 28, 28, 1), np.uint8)
    assert known > 0.4
    assert model(noise)[1].mean() < known / 2


def test_the_mean_of_several_models_is_calibrated_on_validation_images():
    """The other model is the same, and on held-out images as sure as it but wrong elsewhere."""
    other = shutil.copytree(PACKAGED / "seed-0", PACKAGED / "seed-3")
    with np.load(other / "held.npz") as file:
        held = dict(file)
    held["logits"] = np.roll(held["logits"], 1, axis=1) + 30 * np.eye(10)[held["labels"]]
    np.savez(other / "held.npz", **held)
    one, mean = Ensemble([0]), Ensemble([0, 3])
    temperature = one.predictors[0].temperature
    single = [softmax(each.held["logits"] / temperature, axis=1) for each in mean.predictors]

    def loss(probabilities: np.ndarray) -> float:
        return -np.log(probabilities[np.arange(len(held["labels"])), held["labels"]]).mean()

    assert loss(mean.mean(single)) < loss(np.mean(single, axis=0)) - 0.1
    np.testing.assert_allclose(mean.mean(single).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(one.mean(single[:1]), single[0], rtol=1e-5)


def test_the_number_of_threads_changes_no_byte(monkeypatch):
    before = Predictor(0)(images())
    monkeypatch.setattr(predict, "THREADS", 1)
    np.testing.assert_array_equal(Predictor(0)(images()), before)


@pytest.mark.parametrize("name", ["packaged/seed-0/model.tflite", "trained/seed-0.keras"])
def test_a_damaged_or_missing_file_is_named(name):
    path = Path("models") / name
    for content in (b"", b"no model", None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.*loaded .*dvc repro"):
            Predictor(0) if "packaged" in name else saved.load(path)


def test_a_network_with_code_in_it_or_in_the_old_format_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    inputs = keras.Input((28, 28, 1))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs)).save(path)
    with pytest.raises(UserError, match="cannot be loaded"):
        saved.load(path)
    with h5py.File(path, "w") as file:  # can run code when it is loaded, whatever the safe mode
        file.attrs["model_config"] = "{}"
    with pytest.raises(UserError, match="cannot be loaded"):
        saved.load(path)
