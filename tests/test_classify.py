"""Digits of one's own pictures: the command, the public function, and the stage `photos`."""

import csv
import io
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from conftest import ROOT, packaged, run, run_stage
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

import apps.classify
from apps.classify import classify
from benchmarks import pages as measure
from benchmarks.drawn import pages
from stages.base.stage import UserError

PLACES = ("benchmarks/results/pages.csv", "benchmarks/results/rejection.csv")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small networks trained on digits, and pictures."""
    folder = packaged(tmp_path_factory.mktemp("classify"), train__batch_size=128)
    shutil.copytree(ROOT / "stages", folder / "stages")
    shutil.copytree(ROOT / "apps", folder / "apps")
    (folder / "photos").mkdir()
    Image.fromarray(draw("plain").picture).save(folder / "photos/plain.png")
    Image.fromarray(draw("inverted").picture).save(folder / "photos/light ink.webp")
    Image.fromarray(draw("photo").picture).save(folder / "photos/photo.jpg")
    return folder


def draw(kind: str, digits: str = "0123456789", seed: int = 0) -> pages.Page:
    """A page of single-stroke digits, which needs no dataset."""
    look = pages.KINDS[kind]._replace(source="drawn")
    labels = np.array(list(digits), int)
    rng = np.random.default_rng(seed)
    return pages.draw_page(look, np.zeros((len(labels), 28, 28)), labels, rng)


def command(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    return run("python", "-m", "apps.classify", *arguments, cwd=folder, check=check)


@pytest.fixture
def project(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`finished`, as the working directory, with nothing remembered from another one."""
    monkeypatch.chdir(finished)
    apps.classify.model.cache_clear()
    return finished


@pytest.mark.slow
def test_the_benchmark_measures_each_kind_of_page_and_each_kind_of_non_digit(tmp_path):
    apps.classify.model.cache_clear()
    folder = packaged(tmp_path, seeds=[0], train__epochs=12, train__network__filters=[16, 32, 32])
    run_stage(measure.main, folder)
    rows = list(csv.DictReader(io.StringIO((folder / PLACES[0]).read_text(encoding="utf-8"))))
    assert [row["condition"] for row in rows] == list(pages.KINDS)
    assert sum(int(row["found"]) for row in rows) > 0.97 * sum(int(row["digits"]) for row in rows)
    assert sum(int(row["false_boxes"]) for row in rows) < 0.05 * len(rows) * 24
    accepted = list(csv.DictReader(io.StringIO((folder / PLACES[1]).read_text())))
    shares = {row["what"]: float(row["accepted"]) for row in accepted}
    assert len(shares) == 10
    # A small model, and scans that are not centred by their mass, as what is found is.
    assert shares.pop("test digits") > max(0.4, *shares.values())


@pytest.mark.parametrize("kind", pages.KINDS)
def test_all_digits_are_found_in_reading_order(project, kind):
    page = draw(kind, "31415926535897932384"[: 6 if "large" in kind else None], seed=5)
    [digits] = classify([page.picture])
    assert digits.rows.tolist() == page.rows.tolist()
    x, y = page.centres.T
    left, top, right, bottom = digits.boxes.T
    assert ((left < x) & (x < right) & (top < y) & (y < bottom)).all()
    assert digits.images.shape == (len(x), 28, 28)
    assert digits.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert digits.images.max(axis=(1, 2)) == pytest.approx(1)


@pytest.fixture
def found_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are never taken for one digit as a whole: a model of two epochs would take many."""
    monkeypatch.setattr(apps.classify, "SQUARE", (2, 1))


@pytest.mark.parametrize("kind", pages.KINDS)
def test_a_page_without_ink_has_no_digit(project, found_only, kind):
    seeds = {"photo": [0, 100, 101, 106], "photo, squared": range(6)}.get(kind, range(2))
    found = classify([draw(kind, "", seed).picture for seed in seeds])
    assert [digits.text() for digits in found] == [""] * len(seeds)


def test_stripes_from_border_to_border_are_no_digits(project, found_only):
    rows = (np.uint8((np.arange(1600) + w // 2) // w % 2 * 255) for w in (16, 32, 80))
    assert {len(found.labels) for found in classify(np.tile(row, (1200, 1)) for row in rows)} == {0}


def test_in_photographs_of_things_hardly_a_shape_is_taken_for_a_digit(project):
    names = ("astronaut", "camera", "cat", "coffee", "coins", "grass", "gravel", "moon", "rocket")
    found = classify([getattr(data, name)() for name in names])
    assert sum(len(digits.labels) for digits in found) <= len(names)


@pytest.mark.parametrize("name", ["brick", "coffee", "coins", "gravel", "flower"])
def test_digits_on_a_sheet_are_found_whatever_it_lies_on(project, name):
    page = draw("plain", "23456789", seed=1)
    things = load_sample_image("flower.jpg") if name == "flower" else getattr(data, name)()
    table = Image.fromarray(things).convert("L").resize((1300, 1000))
    table.paste(Image.fromarray(page.picture), (150, 100))
    [digits] = classify([table])
    centres = (digits.boxes[:, :2] + digits.boxes[:, 2:]) / 2 - (150, 100)
    near = np.linalg.norm(centres[:, None] - page.centres, axis=2).min(axis=0, initial=99)
    assert near.max() < 10


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (400, 3), (28, 28), (3000, 4000)])
def test_a_picture_of_any_size_in_one_colour_has_no_digit(project, shape):
    for grey in (0, 128, 255):
        assert len(classify([np.full(shape, grey, np.uint8)])[0].labels) == 0


def test_an_image_like_those_of_mnist_is_one_digit_however_enlarged(project):
    images = classify([draw("plain").picture])[0].images  # as MNIST's: 28×28, light on dark
    large = [Image.fromarray(np.uint8(255 * each)).resize((600, 600)) for each in images]
    for given in (images, 1 - images, large):
        assert [len(digits.labels) for digits in classify(given)] == [1] * 10


def test_a_tiny_picture_is_one_digit_even_if_its_stroke_is_broken(project):
    [image, *_] = classify([draw("plain", "3").picture])[0].images
    assert len(classify([image * (np.arange(28) % 7 > 1)])[0].labels) == 1


def test_transparent_turned_deep_and_heic_pictures_are_seen_as_people_see_them(project, tmp_path):
    picture = draw("plain").picture
    [expected] = classify([picture])
    ink = Image.fromarray(np.where(picture < 128, 255, 0).astype(np.uint8))
    clear = Image.merge("LA", (Image.new("L", ink.size, 0), ink))
    clear.save(tmp_path / "clear.png")
    turned = Image.fromarray(picture).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(picture.astype(np.uint16) * 100).save(tmp_path / "deep.png")
    pillow_heif.from_pillow(Image.fromarray(picture)).save(tmp_path / "from a phone.heic")
    for digits in classify(sorted(tmp_path.iterdir())):
        assert len(digits.labels) == len(expected.labels)
        assert np.abs(digits.boxes - expected.boxes).max() < 4


@pytest.mark.slow
def test_threads_get_the_answers_of_one(project):
    pictures = [draw("plain", seed=seed).picture for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda picture: classify([picture])[0], pictures))
    for one, other in zip(found, classify(pictures), strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_the_command_takes_files_folders_globs_and_stdin(finished, tmp_path):
    table = command(finished, "photos", "photos/p*.jpg", "--show", str(tmp_path)).stdout
    assert table.count("plain.png") == table.count("photo.jpg") // 2
    assert {path.name for path in tmp_path.iterdir()} == {
        "plain.png",
        "light ink.png",
        "photo.png",
        "photo-2.png",  # it was asked for twice
    }
    assert Image.open(tmp_path / "plain.png").height > 800
    rows = json.loads(command(finished, "photos/plain.png", "--json").stdout)
    assert len(rows) == 10
    lines = command(finished, "photos/plain.png", "--csv").stdout.splitlines()
    assert lines[0].startswith("file,row,label,probability,second")
    assert len(lines) == 11
    piped = subprocess.run(
        [sys.executable, "-m", "apps.classify", "-", "--json"],
        cwd=finished,
        input=(finished / "photos/plain.png").read_bytes(),
        capture_output=True,
    )
    assert json.loads(piped.stdout) == [row | {"file": "-"} for row in rows]


def test_what_cannot_be_loaded_is_named_and_the_rest_is_classified(finished, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    photo = (finished / "photos/photo.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(photo[: len(photo) // 2])
    Image.new("1", (10_000, 10_001)).save(tmp_path / "bomb.png")
    (tmp_path / "empty").mkdir()
    wrong = ["text.png", "cut.jpg", "bomb.png", "empty", "missing.png", "*.gif"]
    paths = [str(tmp_path / name) for name in wrong]
    result = command(finished, *paths, "photos/plain.png", check=False)
    assert result.returncode == 1
    assert "plain.png" in result.stdout
    messages = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(messages) == len(wrong)
    for name in wrong:
        assert any(name in message for message in messages)
    assert "Traceback" not in result.stderr


def test_from_another_folder_labels_of_another_dataset_are_said_to_be_its(finished, tmp_path):
    shutil.copy(finished / "photos/plain.png", tmp_path)
    arguments = ("-m", "apps.classify", "plain.png")
    result = run("python", *arguments, cwd=tmp_path, PYTHONPATH=str(finished))
    assert "trained on digits" in result.stderr
    assert "\nplain.png\t" in result.stdout


@pytest.mark.parametrize("name", ["held.npz", "model.json"])
def test_without_a_network_it_says_what_to_run(folder, name):
    (folder / "models/packaged/seed-0" / name).unlink()
    result = command(folder, "photos/plain.png", check=False)
    assert result.returncode == 1
    assert "`dvc repro package`" in result.stderr
    assert "Traceback" not in result.stderr


def test_tensorflow_is_not_imported(finished):
    code = "import sys; from apps.classify import classify; classify(['photos/plain.png']);"
    code += "print({'tensorflow', 'pandas', 'matplotlib', 'sklearn'} & {*sys.modules})"
    assert run("python", "-c", code, cwd=finished).stdout == "set()\n"


@pytest.mark.parametrize("array", [np.zeros((4, 4, 2)), np.full((4, 4), 7.0), np.zeros((0, 3))])
def test_an_array_that_is_no_picture_is_refused(project, array):
    with pytest.raises(UserError, match="expected an array"):
        classify([array])
