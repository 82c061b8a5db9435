"""Digits of one's own pictures: the command, the public function, the benchmark of pages."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
from conftest import ROOT, packaged, run, run_stage
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage
from skimage import data
from sklearn.datasets import load_sample_image

import apps.classify
from apps.classify import classify, scenes
from benchmarks import pages as measure
from benchmarks.drawn import negatives, pages
from benchmarks.drawn.glyphs import drawn
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
    small = {"train__epochs": 12, "train__batch_size": 64, "train__network__filters": [16, 32, 32]}
    folder = packaged(tmp_path, seeds=[0], **small)
    run_stage(measure.main, folder)
    rows = list(csv.DictReader(io.StringIO((folder / PLACES[0]).read_text(encoding="utf-8"))))
    assert [row["condition"] for row in rows] == list(pages.KINDS)
    assert sum(int(row["found"]) for row in rows) > 0.9 * sum(int(row["digits"]) for row in rows)
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
    x, y = page.centres.T
    left, top, right, bottom = digits.boxes[:, None].T
    at = (left < x[:, None]) & (x[:, None] < right) & (top < y[:, None]) & (y[:, None] < bottom)
    assert at.any(axis=1).all()
    found = at.argmax(axis=1)
    assert (np.diff(found) > 0).all()
    assert np.unique(digits.rows[found], return_inverse=True)[1].tolist() == page.rows.tolist()
    assert len(x) <= len(digits.labels) <= len(x) + 1  # a grain more may be a question mark
    assert digits.images.shape[1:] == (28, 28)
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
    assert sum(len(digits.labels) for digits in found) <= 1.2 * len(names)


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


# --- What pens, papers and sheets are like: pictures that are no page of PLACES' kinds


def row(digits: str, size: int, pen: float, gap: float, seed: int = 0) -> tuple[np.ndarray, list]:
    """The ink of a row of digits, and the middle of each; lengths are shares of their size."""
    rng = np.random.default_rng(seed)
    ink, middles = np.zeros((2 * size, round(len(digits) * 1.6 * size) + size), np.float32), []
    x = size // 2
    for digit in digits:
        glyph = drawn(int(digit), size, rng, pen)
        ink[size // 2 : size // 2 + len(glyph), x : x + glyph.shape[1]] = glyph
        middles.append((x + glyph.shape[1] / 2, size // 2 + len(glyph) / 2))
        x += glyph.shape[1] + round(gap * size)
    return ink[:, : x + size // 2], middles


def hatched(ink: np.ndarray) -> np.ndarray:
    """Ink of uneven darkness, as a ballpoint's: every few pixels half as dark."""
    rows, columns = np.indices(ink.shape)
    return ink * np.where((rows + columns) % 9 < 4, 0.45, 1)


def with_specks(ink: np.ndarray) -> np.ndarray:
    """Small print below."""
    print_ = np.zeros((160, ink.shape[1]), np.float32)
    for y in range(8, 150, 9):
        print_[y : y + 5] = np.random.default_rng(y).random(ink.shape[1]) < 0.4
    return np.vstack([ink, print_])


def in_a_frame(ink: np.ndarray) -> np.ndarray:
    """A cell of a table."""
    ink = ink.copy()
    ink[[2, 3, -4, -3]] = ink[:, [2, 3, -4, -3]] = 0.8
    return ink


def paler(ink: np.ndarray) -> np.ndarray:
    """The right half in a pale pen."""
    return ink * np.where(np.arange(ink.shape[1]) < ink.shape[1] / 2, 1, 0.3)


INKS = {
    "uneven ink": lambda: (row("88888", 60, 1.4, 0.5), hatched),
    "small print below": lambda: (row("2345", 70, 1.6, 0.5), with_specks),
    "thin and large": lambda: (row("472", 300, 1, 0.3), None),
    "close together": lambda: (row("53901625", 60, 2.6, 0.07), None),
    "cut close": lambda: (row("5", 90, 4, 0), lambda ink: ink[44:-44, 44:-44]),
    "in a frame": lambda: (row("47", 60, 2, 0.5), in_a_frame),
    "pale beside dark": lambda: (row("273456", 60, 1.6, 0.5), paler),
    "blurred": lambda: (row("3", 60, 4.5, 0), lambda ink: ndimage.gaussian_filter(ink, 5)),
}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", INKS)
def test_digits_of_every_pen_are_found(project, kind, dark):
    """On paper that is neither white nor black."""
    (ink, middles), change = INKS[kind]()
    cut = 44 if kind == "cut close" else 0
    scene = 0.88 - 0.75 * (change(ink) if change else ink)
    [digits] = classify([np.uint8(255 * (1 - scene if dark else scene))])
    assert len(digits.labels) <= len(middles) + 1
    for x, y in middles:
        inside = (digits.boxes[:, :2] < (x - cut, y - cut)) & (
            (x - cut, y - cut) < digits.boxes[:, 2:]
        )
        assert inside.all(axis=1).any()


def test_a_digit_is_found_whatever_paper_it_was_enlarged_on(project):
    """Paper not quite white, a dark theme, a colour map; enlarged, saved as JPEG."""
    for seed, digit in enumerate("0123456789"):
        ink = np.pad(drawn(int(digit), 20, np.random.default_rng(seed), 2.5), 6)
        for paper, pen in ((235, 20), (40, 230), (130, 60), (68, 253)):
            grey = Image.fromarray(np.uint8(paper + (pen - paper) * ink)).resize((84, 84))
            grey.save(file := io.BytesIO(), "JPEG", quality=70)
            assert len(classify([io.BytesIO(file.getvalue())])[0].labels) == 1, digit


def test_brackets_and_signs_are_no_digits(project):
    picture = np.full((120, 500), 240, np.uint8)
    for at, sign in enumerate("(){}[]+=?"):
        cv2.putText(picture, sign, (20 + 50 * at, 80), cv2.FONT_HERSHEY_SIMPLEX, 2, 30, 3)
    assert len(classify([picture])[0].labels) <= 1


def test_digits_in_a_bent_table_are_found(project):
    picture = Image.new("L", (540, 540), 225)
    page, truth = ImageDraw.Draw(picture), []
    for line in range(10):
        page.line([(15 + 56 * line, 15), (15 + 56 * line, 520)], 60, 3 if line % 3 == 0 else 1)
        page.line([(15, 15 + 56 * line), (520, 15 + 56 * line)], 60, 3 if line % 3 == 0 else 1)
    for place, digit in zip(range(0, 81, 4), "314159265358979323846", strict=True):
        ink = drawn(int(digit), 30, np.random.default_rng(place), 2)
        x, y = 32 + 56 * (place % 9), 28 + 56 * (place // 9)
        picture.paste(40, (x, y), Image.fromarray(np.uint8(255 * ink)))
        truth.append((x + ink.shape[1] / 2, y + ink.shape[0] / 2))
    rows = np.arange(540)
    bend = np.rint(8 * np.sin(rows / 90)).astype(int)
    columns = zip(np.array(picture).T, bend, strict=True)
    bent = np.stack([np.roll(column, by) for column, by in columns], axis=1)
    for pixels, move in ((np.array(picture), 0 * bend), (bent, bend)):
        boxes = classify([pixels])[0].boxes
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        moved = np.array([(x, y + move[int(x)]) for x, y in truth])
        near = np.linalg.norm(middles[:, None] - moved, axis=2)
        assert (near.min(axis=0, initial=99) < 10).all()
        assert len(middles) == len(truth)


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
        assert np.abs(digits.boxes - expected.boxes).max() < 9


def saved(image: Image.Image, kind: str, **options) -> io.BytesIO:
    image.save(file := io.BytesIO(), kind, **options)
    return io.BytesIO(file.getvalue())


def test_files_are_read_as_viewers_show_them(project, tmp_path):
    """Written by other programs, with more in them than a picture, or a little less."""
    picture = Image.fromarray(draw("plain").picture)
    [expected] = classify([picture])
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    path = tmp_path / "turned.tif"
    turned.save(path, tiffinfo={274: 6})
    text = PngInfo()
    text.add_text("notes", "x" * 2_000_000, zip=True)
    levels = np.array(picture, np.uint16) * 100
    levels[5, 5] = 65535
    floats = np.array(picture, np.float32)
    floats[:3] = np.nan
    blank = Image.new("L", picture.size, 255)
    without_end = saved(picture, "JPEG", quality=95).getvalue()[:-2]
    white = Image.new("LA", picture.size, (255, 0))
    white.putalpha(picture.point(lambda level: 255 if level < 128 else 0))
    unset = picture.convert("RGBA")
    unset.putalpha(0)
    sources = {
        "TIFF, turned": path,
        "PNG with much text": saved(picture, "PNG", pnginfo=text),
        "PNG with a large profile": saved(picture, "PNG", icc_profile=bytes(3_000_000)),
        "16 bits, one dead pixel": saved(Image.fromarray(levels), "PNG"),
        "floats, some are no number": saved(Image.fromarray(floats), "TIFF"),
        "GIF, first frame blank": saved(blank, "GIF", save_all=True, append_images=[picture]),
        "JPEG without its end": io.BytesIO(without_end),
        "white on transparent": saved(white, "PNG"),
        "alpha never set": saved(unset, "PNG"),
    }
    for name, digits in zip(sources, classify(sources.values()), strict=True):
        assert len(digits.labels) == len(expected.labels), name
        assert np.abs(digits.boxes - expected.boxes).max() < 9, name


def test_all_pages_of_a_file_are_read(project):
    first, second = draw("plain"), draw("plain", "863", seed=1)
    images = [Image.fromarray(page.picture) for page in (first, second)]
    [digits] = classify([saved(images[0], "TIFF", save_all=True, append_images=images[1:])])
    assert len(digits.labels) == 13
    assert digits.rows.tolist() == [*first.rows, *second.rows + first.rows.max() + 1]
    height = first.picture.shape[0]
    assert (digits.boxes[:10, 3] <= height).all()
    assert (digits.boxes[10:, 1] >= height).all()


def test_the_callers_image_stays_as_it_is(project):
    image = Image.open(saved(Image.fromarray(draw("plain").picture).resize((4000, 3200)), "JPEG"))
    [digits] = classify([image])
    assert (image.size, image.mode) == ((4000, 3200), "L")
    assert digits.boxes[:, 2].max() > 2000


def test_one_picture_in_place_of_a_list_is_refused_clearly(project):
    with pytest.raises(UserError, match="expected a list of pictures"):
        classify("photos/plain.png")
    cut = Image.open(io.BytesIO(saved(Image.new("L", (99, 99)), "PNG").getvalue()[:60]))
    with pytest.raises(UserError, match="damaged"):
        classify([cut])


def test_show_writes_over_nothing(finished, tmp_path):
    """Neither over what it reads, by whatever name, nor over what somebody else put there."""
    (tmp_path / "a").mkdir()
    for name in ("one.png", "a/one.png", "one.jpg", "theirs.png"):
        Image.fromarray(draw("plain", "47").picture).save(tmp_path / name)
    (tmp_path / "other.png").symlink_to(tmp_path / "one.png")
    (tmp_path / "other.jpg").hardlink_to(tmp_path / "one.jpg")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    names = ["one.png", "a/one.png", "one.jpg", "other.jpg"]
    arguments = [*(str(tmp_path / name) for name in names), "--show", str(tmp_path)]
    for _ in range(2):  # the second time, over its own
        command(finished, *arguments)
    assert {path: path.read_bytes() for path in before} == before
    assert len([*tmp_path.glob("*.png")]) == 3 + len(names)


def test_any_file_name_is_written_in_one_line(finished, tmp_path):
    picture = (finished / "photos/plain.png").read_bytes()
    for name in ("a\tb\nc.png", "\N{GRINNING FACE}.png", "._x.png", ".hidden/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(picture)
    result = run(
        *("python", "-m", "apps.classify", str(tmp_path)), cwd=finished, PYTHONIOENCODING="ascii"
    )
    rows = [line.split("\t") for line in result.stdout.splitlines()[1:]]
    assert {len(cells) for cells in rows} == {4}
    assert len({cells[0] for cells in rows}) == 3
    assert "100.0%" not in result.stdout


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


def test_the_benchmark_shows_photographs_that_the_finder_has_not_learned_from():
    learned = {photo.tobytes() for photo in scenes.photos()}
    shown = negatives.photographs(np.random.default_rng(0), cuts=0)["photographs"]
    assert len(shown) >= 8
    assert not [photo.shape for photo in shown if photo.tobytes() in learned]


@pytest.mark.slow
def test_the_finder_learns_from_training_digits_alone(finished, tmp_path, monkeypatch):
    """Where neither test images nor anybody's photographs are, it learns all the same."""
    from apps.classify import find, learn

    shutil.copytree(finished / "data/processed/train", tmp_path / "data/processed/train")
    monkeypatch.chdir(tmp_path)
    for module in (learn, find):
        monkeypatch.setattr(module, "FILE", tmp_path / "finder.tflite")
    monkeypatch.setattr(sys, "argv", ["learn", "--scenes", "12", "--epochs", "1"])
    learn.main()
    find.finder.cache_clear()
    centres, sides, ink = find.ask(draw("plain").picture)
    find.finder.cache_clear()
    assert (centres.shape, sides.shape, ink.shape) == ((200, 250), (200, 250, 4), (400, 500))
    assert np.isfinite(sides).all()
