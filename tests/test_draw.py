"""The page to draw on and the int8 file: written by the stage, compared with Keras, drawn on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ai_edge_litert.interpreter import Interpreter
from browser import Tab
from conftest import ROOT, change_params, contents, packaged, run_stage, small_project
from PIL import Image

from apps.draw import __main__ as drawing
from stages import download, package, preprocess, train
from stages.base.settings import Network
from stages.base.stage import UserError
from stages.dataset.picture import opened, prepare
from stages.network import architecture
from stages.network.runtime import keras
from stages.prediction import rejection
from stages.prediction.page import page_data
from stages.prediction.predict import Ensemble

pytestmark = pytest.mark.slow
# Ways to write each digit, as SVG paths on a paper of 100×100; "|" lifts the pen.
WAYS = """
0 M50 18C25 18 25 82 50 82S75 18 50 18
0 M55 20C20 25 30 85 52 80C75 75 70 15 50 20
1 M50 15V85
1 M38 32L52 15V85
1 M40 30L54 15V85|M36 85H72
2 M30 35C30 10 72 10 70 35C68 55 35 65 28 82H75
2 M32 32C40 12 70 18 66 40C62 60 45 75 32 80C26 70 45 70 50 78C58 84 68 80 74 74
3 M30 22C45 10 70 18 66 34C64 44 52 47 44 48C60 48 74 55 70 70C66 86 40 86 28 76
3 M30 18H68L48 44C72 42 76 70 60 80C50 86 36 84 28 76
4 M40 15L28 55H75|M62 35V88
4 M62 85V15L25 60H78
5 M68 18H36L33 45C50 36 72 45 70 64C68 84 40 86 28 76
5 M38 18L34 46C52 38 72 46 70 65C66 86 38 84 28 76|M38 18H70
6 M64 15C40 25 28 50 30 68C32 86 66 86 66 66C66 48 38 48 32 64
6 M58 15C46 30 32 50 32 66C32 90 70 86 66 64C62 50 40 54 33 68
7 M28 20H72L44 84
7 M28 20H72L46 85|M38 52H66
8 M62 28C55 10 30 18 36 36C42 50 68 52 68 70C66 88 32 88 32 70C32 54 62 46 62 28
8 M50 48C30 46 32 16 50 16S70 46 50 48|M50 48C24 50 26 84 50 84S76 50 50 48
9 M66 32C60 12 32 16 32 36C32 54 60 54 66 32L62 86
9 M68 30C58 12 34 18 34 36C36 56 66 50 67 32C68 55 66 80 40 84
"""
WAYS = [line.split(" ", 1) for line in WAYS.strip().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which small models were trained, packaged and exported, on digits."""
    folder = tmp_path_factory.mktemp("draw")
    packaged(folder, seeds=[0], train__network__filters=[6, 5, 9, 8])
    (folder / "apps").symlink_to(ROOT / "apps")
    run_stage(drawing.main, folder)
    return folder


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project's own model, trained on MNIST, and today's page."""
    if not (ROOT / "models/packaged/seed-0/model.tflite").is_file():
        pytest.skip("the pipeline has not run yet")
    folder = tmp_path_factory.mktemp("mnist")
    for name in ("apps", "data", "models/packaged"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "params.yaml", folder)
    run_stage(drawing.main, folder)
    return folder


def images(folder: Path) -> np.ndarray:
    return np.load(folder / "data/processed/test/images.npy")


# --- The stage


def test_what_is_exported_predicts_as_keras_does(finished):
    frame = pd.read_csv(finished / "metrics/exports/seed-0.csv", index_col="file")
    assert list(frame.index) == ["model.keras", "model.tflite", "int8.tflite"]
    assert frame.loc["model.tflite", "other"] == 0
    assert frame.loc["int8.tflite", "other"] < 0.05 * frame.loc["int8.tflite", "images"]


def test_the_int8_file_computes_in_whole_numbers_up_to_the_logits(finished):
    interpreter = Interpreter(str(finished / "models/packaged/seed-0/int8.tflite"))
    interpreter.allocate_tensors()
    for details in (interpreter.get_input_details(), interpreter.get_output_details()):
        assert [detail["dtype"] for detail in details] == [np.int8]
    operations = {operation["op_name"] for operation in interpreter._get_ops_details()}
    assert not operations & {"QUANTIZE", "DEQUANTIZE", "SOFTMAX"}


def test_the_same_models_give_the_same_bytes(folder):
    before = contents(folder / "models/exported")
    run_stage(drawing.main, folder)
    assert contents(folder / "models/exported") == before


def with_layer(model: keras.Model, after: str, layer: keras.layers.Layer) -> keras.Model:
    """A copy of a model with one layer more."""

    def convert(old: keras.layers.Layer) -> keras.layers.Layer:
        copy = type(old).from_config(old.get_config())
        return keras.Sequential([copy, layer], name="both") if old.name == after else copy

    return keras.models.clone_model(model, clone_function=convert)


def test_a_layer_that_the_page_does_not_know_is_refused():
    model = architecture.with_keras_layers(
        architecture.build((28, 28, 1), 10, Network(crop=2, filters=[4, 8, 8]))
    )
    assert [layer["activation"] for layer in page_data(model)["layers"]] == [
        "absolute",
        "relu",
        "relu",
    ]
    for changed in (
        with_layer(model, "relu1", keras.layers.Activation("tanh")),
        with_layer(model, "conv2", keras.layers.AveragePooling2D(2)),
    ):
        with pytest.raises(UserError, match="the page cannot compute"):
            page_data(changed)


# --- The page's arithmetic


def assert_page_predicts_like(tab: Tab, folder: Path, count: int, limit: float) -> None:
    """The page gives the LiteRT file's classes, and its numbers within `limit`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shown = images(folder)[:count]
        [predictor] = Ensemble([0]).predictors
        outputs = predictor.outputs(shown)
    expected = outputs["probabilities"]
    centres = predictor.held["centres"]
    likeness = rejection.likeness(outputs["features"], expected.argmax(axis=1), centres)
    tab.open(folder / drawing.PAGE)
    for start in range(0, count, 500):
        values = shown[start : start + 500].reshape(-1, 784).tolist()
        script = f"{json.dumps(values)}.map((image) => look(image.map((value) => value / 255)))"
        script += ".map((seen) => [...seen.probabilities, seen.likeness])"
        found, alike = np.split(np.array(tab.run(script)), [-1], axis=1)
        wanted, sure = expected[start : start + 500], likeness[start : start + 500]
        np.testing.assert_allclose(found, wanted, atol=limit)
        best, second = -np.sort(-wanted, axis=1)[:, :2].T
        clear = best - second > 2 * limit
        np.testing.assert_array_equal(found[clear].argmax(axis=1), wanted[clear].argmax(axis=1))
        np.testing.assert_allclose(alike[sure > 0, 0], sure[sure > 0], atol=limit)


def test_the_page_predicts_as_the_exported_network(tab, mnist):
    assert_page_predicts_like(tab, mnist, 500, 0.002)
    assert (mnist / drawing.PAGE).stat().st_size < 1_000_000


@pytest.mark.parametrize("shift", [0, 1])
def test_any_network_gets_a_page(tab, folder, shift):
    change_params(folder, package__average_shift=shift)
    for split in ("train", "validation", "test"):
        path = folder / "data/processed" / split / "dataset.json"
        info = json.loads(path.read_text(encoding="utf-8"))
        info |= {"subject": "articles of clothing", "classes": ["T-shirt/top", *"bcdefghij"]}
        path.write_text(json.dumps(info), encoding="utf-8")
    run_stage(package.main, folder, "--seed", "0")
    run_stage(drawing.main, folder)
    assert_page_predicts_like(tab, folder, 50, 0.005)
    assert tab.run("document.title") == "Articles of clothing"
    assert tab.run("document.querySelector('#bars').innerText").startswith("T-shirt/top")


# --- Drawing


def points(tab: Tab, path: str, size: float = 1, corner: float = 0, count: int = 9) -> list:
    """Points along an SVG path, in pixels of the window."""
    return tab.run(f"""(() => {{
        const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
        path.setAttribute("d", "{path}");
        const {{ left, top, width }} = paper.getBoundingClientRect();
        return Array.from({{ length: {count} + 1 }}, (_, index) => {{
            const {{ x, y }} = path.getPointAtLength(path.getTotalLength() * index / {count});
            const place = (value) => width * ({corner} + {size} * value / 100);
            return [left + place(x), top + place(y)];
        }});
    }})()""")


def draw(tab: Tab, paths: str, touch: bool = False, size: float = 1, corner: float = 0) -> None:
    for path in paths.split("|"):
        along = points(tab, path, size, corner)
        pen(tab, "start", along[0], touch)
        for point in along[1:]:
            pen(tab, "move", point, touch)
        pen(tab, "end", along[-1], touch)
    tab.frame()


def pen(tab: Tab, what: str, point: list, touch: bool = False) -> None:
    """Put the mouse's button or a finger down, move it, or lift it."""
    x, y = point
    if touch:
        touched = [] if what == "end" else [{"x": x, "y": y}]
        tab.send("Input.dispatchTouchEvent", type=f"touch{what.title()}", touchPoints=touched)
    else:
        kind = {"start": "mousePressed", "move": "mouseMoved", "end": "mouseReleased"}[what]
        options = {"type": kind, "x": x, "y": y, "button": "left"}
        options |= {"buttons": int(what != "end"), "clickCount": int(what != "move")}
        tab.send("Input.dispatchMouseEvent", **options)


def shown(tab: Tab, name: str) -> str:
    return tab.run(f'document.getElementById("{name}").innerText')


def assert_drawn_digits_are_correct(tab: Tab, page: Path, touch: bool, **place: float) -> None:
    tab.open(page, *((390, 700) if touch else ()), touch=touch)
    for digit, way in WAYS:
        draw(tab, way, touch, **place)
        assert shown(tab, "answer") == digit, way
        tab.run("clear()")
        tab.frame()
    assert tab.faults() == []


@pytest.mark.parametrize("touch", [False, True])
def test_drawn_digits_are_correct(tab, mnist, touch):
    assert_drawn_digits_are_correct(tab, mnist / drawing.PAGE, touch)


@pytest.mark.parametrize(("size", "corner"), [(0.35, 0.02), (0.35, 0.6), (1.2, -0.1)])
def test_drawn_digits_are_correct_in_a_corner_and_over_the_edge(tab, mnist, size, corner):
    assert_drawn_digits_are_correct(tab, mnist / drawing.PAGE, False, size=size, corner=corner)


def test_probabilities_move_before_the_pen_lifts(tab, finished):
    tab.open(finished / drawing.PAGE)
    assert shown(tab, "answer") == shown(tab, "live") == ""
    seen = set()
    along = points(tab, WAYS[7][1])
    pen(tab, "start", along[0])
    for point in along[1:]:
        pen(tab, "move", point)
        tab.frame()
        seen.add(shown(tab, "bars"))
        assert shown(tab, "live") == "", "a screen reader would never stop"
    assert len(seen) > 3
    pen(tab, "end", along[-1])
    tab.frame()
    assert shown(tab, "answer") in shown(tab, "live") != ""


def press(tab: Tab, key: str, ctrl: bool = False) -> None:
    for kind in ("keyDown", "keyUp"):
        text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
        tab.send("Input.dispatchKeyEvent", type=kind, key=key, modifiers=2 * ctrl, **text)
    tab.frame()


def test_strokes_are_taken_back_and_cleared(tab, finished):
    tab.open(finished / drawing.PAGE)
    strokes = "items.length"
    empty = shown(tab, "bars")
    for way in ("M20 20H80", "M20 50H80", "M50 50V80"):
        draw(tab, way)
    press(tab, "z", ctrl=True)
    assert tab.run(strokes) == 2
    tab.run('document.getElementById("clear").click()')
    tab.frame()
    assert (tab.run(strokes), shown(tab, "answer"), shown(tab, "bars")) == (0, "", empty)
    press(tab, "z", ctrl=True)
    assert tab.run(strokes) == 2, "clearing can be taken back, too"
    press(tab, "Escape")
    assert tab.run(strokes) == 0
    draw(tab, "M50 50h.1")
    assert shown(tab, "sure") == "Too small to tell"
    assert tab.faults() == []


def test_a_finger_on_the_paper_does_not_scroll_the_page(tab, finished):
    tab.open(finished / drawing.PAGE, 390, 450, touch=True)
    draw(tab, "M50 90V10", touch=True)
    assert tab.run("[scrollY, items.length]") == [0, 1]
    for height in (440, 300, 200, 100):  # beside the paper it does
        pen(tab, "start" if height == 440 else "move", [3, height], touch=True)
    pen(tab, "end", [3, 100], touch=True)
    tab.frame()
    assert tab.run("scrollY") > 0


def drop(tab: Tab, picture: np.ndarray) -> None:
    """Drop a picture: grey or colour, and opacity, uint8, shape (height, width, 2 or 4)."""
    height, width = picture.shape[:2]
    pixels = (picture if picture.shape[2] > 2 else picture[..., [0, 0, 0, 1]]).ravel().tolist()
    tab.run(f"""(async () => {{
        const [canvas, context] = canvasOf({width}, {height});
        context.putImageData(new ImageData(new Uint8ClampedArray({pixels}), {width}), 0, 0);
        const blob = await new Promise((done) => canvas.toBlob(done));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([blob], "photo.png", {{ type: "image/png" }}));
        say("");
        dispatchEvent(Object.assign(new Event("drop"), {{ dataTransfer }}));
        while (!element("sure").textContent) await new Promise(requestAnimationFrame);
    }})()""")
    tab.frame()


@pytest.mark.parametrize("look", ["dark on grey", "light on dark", "white on nothing"])
def test_a_picture_of_one_digit_is_predicted(tab, mnist, look):
    tab.open(mnist / drawing.PAGE)
    labels = np.load(mnist / "data/processed/test/labels.npy")
    for index in range(10):
        ink = np.kron(images(mnist)[index, ..., 0] / 255, np.ones((7, 7)))
        paper = {"dark on grey": 210 - 180 * ink, "light on dark": 40 + 180 * ink}
        picture = np.stack([paper.get(look, 0 * ink + 255), 0 * ink + 255], axis=2)
        if look not in paper:
            picture[..., 1] = 255 * ink
        drop(tab, np.uint8(picture))
        assert shown(tab, "answer") == str(labels[index]), index


def test_a_picture_of_more_than_one_digit_is_for_the_command(tab, mnist):
    tab.open(mnist / drawing.PAGE)
    some = images(mnist)[..., 0]
    for count in (2, 3):
        picture = 255 - np.hstack([np.kron(each, np.ones((4, 4))) for each in some[:count]])
        drop(tab, np.uint8(np.stack([picture, 0 * picture + 255], axis=2)))
        assert shown(tab, "answer") in ("", "?")
        assert "python -m apps.classify" in shown(tab, "sure") + shown(tab, "second")


@pytest.mark.parametrize(("fit", "size"), [("crop", (200, 120)), ("pad", (90, 160))])
def test_pictures_in_colour_are_classified_as_by_the_command(tab, tmp_path, fit, size):
    small_project(tmp_path, seeds=[0], download__size=20, download__fit=fit)
    change_params(tmp_path, download__dataset="things", train__batch_size=8, train__epochs=4)
    rng = np.random.default_rng(0)
    for name, colour in (
        ("red", (220, 60, 50)),
        ("green", (60, 190, 80)),
        ("grey", (120, 120, 120)),
    ):
        place = tmp_path / "data/own/things" / name
        place.mkdir(parents=True)
        for number in range(12):
            rough = np.array(colour) + rng.integers(-30, 30, (5, 5, 3))
            picture = Image.fromarray(rough.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
            picture.save(place / f"{number}.png")
    for stage, *arguments in (
        (download,),
        (preprocess,),
        (train, "--seed", "0"),
        (package, "--seed", "0"),
    ):
        run_stage(stage.main, tmp_path, *arguments)
    (tmp_path / "apps").symlink_to(ROOT / "apps")
    run_stage(drawing.main, tmp_path)
    tab.open(tmp_path / drawing.PAGE)
    assert shown(tab, "hint") == "Drop a picture here"
    draw(tab, WAYS[0][1])
    assert tab.run("items.length") == 0, "there is nothing to draw"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        model = Ensemble([0])
        for path in sorted(tmp_path.glob("data/own/things/*/1.png")):
            drop(tab, np.asarray(Image.open(path).convert("RGBA")))
            with opened(path) as source:
                image = prepare(source, (20, 20, 3), fit)
            seen = np.reshape(tab.run("[...items[0].image]"), (20, 20, 3))
            np.testing.assert_allclose(255 * seen, image, atol=6)
            [probabilities], _ = model(image[None])
            found = tab.run("look(items[0].image).probabilities")
            np.testing.assert_allclose(found, probabilities, atol=0.05)
    assert tab.faults() == []


# The contrast of each element that has text with what is behind it (WCAG 2.2, 1.4.3).
CONTRASTS = """(() => {
    const levels = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => levels(color).slice(0, 3).reduce((sum, level, band) => sum
        + [0.2126, 0.7152, 0.0722][band]
        * (level > 10 ? ((level / 255 + 0.055) / 1.055) ** 2.4 : level / 3294.6), 0);
    const seen = (node) => getComputedStyle(node).backgroundColor;
    const behind = (node) => levels(seen(node))[3] === 0 ? behind(node.parentElement) : seen(node);
    const texts = [...document.body.querySelectorAll("*")].filter((node) => node.checkVisibility()
        && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
    return texts.map((node) => {
        const [ink, paper] = [getComputedStyle(node).color, behind(node)].map(light);
        const ratio = (ink + 0.05) / (paper + 0.05);
        return [node.outerHTML.slice(0, 60), Math.max(ratio, 1 / ratio)];
    });
})()"""


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_all_is_legible_in_both_themes_and_at_hand_on_a_phone(tab, finished, theme):
    scheme = {"name": "prefers-color-scheme", "value": theme}
    tab.send("Emulation.setEmulatedMedia", features=[scheme])
    tab.open(finished / drawing.PAGE, 390, 844, touch=True)
    draw(tab, WAYS[11][1], touch=True)
    reach = "[...document.querySelectorAll('#paper, .tools button, #bars li')].map((node) => {"
    reach += "const box = node.getBoundingClientRect(); return [box.right, box.bottom]; })"
    right, bottom = np.max(tab.run(reach), axis=0)
    assert (right <= 390, bottom <= 844) == (True, True), "paper, buttons and bars are in sight"
    assert min(tab.run("[...document.querySelectorAll('button')].map((b) => b.offsetHeight)")) >= 44
    tab.run("document.querySelector('details').open = true")
    for text, contrast in (pairs := tab.run(CONTRASTS)):
        assert contrast >= 4.5 or "disabled" in text, text
    assert len(pairs) > 20
    page = tab.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(page) < 200) == (theme == "dark")


def test_keyboard_and_screen_reader_find_all_there_is(tab, finished):
    tab.open(finished / drawing.PAGE)
    draw(tab, WAYS[11][1])
    names = []
    for _ in range(4):
        press(tab, "Tab")
        names.append(tab.run("document.activeElement.innerText"))
        assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert names == ["Undo", "Clear", "Picture…", "How it works"]
    tab.send("Page.setInterceptFileChooserDialog", enabled=True)
    tab.run("document.getElementById('photo').focus()")
    press(tab, "Enter")
    assert tab.happened("Page.fileChooserOpened")
    tree = tab.send("Accessibility.getFullAXTree")["nodes"]
    told = [node for node in tree if "name" in node and not node["ignored"]]
    nodes = [(node["role"]["value"], node["name"]["value"]) for node in told]
    labelled = {role for role, name in nodes if name}
    assert {"heading", "button", "image", "region"} <= labelled
    assert not [role for role, name in nodes if role in ("button", "image", "region") and not name]
    assert "empty" not in [name for role, name in nodes if name.startswith("Paper")][0]


def test_the_page_asks_for_nothing_and_complains_of_nothing(tab, finished):
    for options in ({}, {"width": 320, "height": 600, "touch": True}):
        tab.open(finished / drawing.PAGE, **options)
        draw(tab, WAYS[11][1])
        assert len(tab.happened("Network.requestWillBeSent")) == 1
        assert tab.faults() == []
        assert tab.run("document.documentElement.scrollWidth - innerWidth") <= 0
