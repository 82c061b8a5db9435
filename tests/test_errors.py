"""The page of errors: what is in it, and what a browser shows."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Tab
from PIL import Image
from test_pictures import Data, predicted

from stages.report import errors

CLASSES = ("ant", "</script><b>bee</b>", "日本語")


@pytest.fixture(scope="module")
def made() -> Data:
    """60 images in colour, some of them misclassified."""
    return predicted(60, CLASSES, 1, (20, 30, 3), disputed=(1003,))


def content(page: str) -> tuple[dict, np.ndarray]:
    """The data in a page, and its images, in that order."""
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    sprite = re.search(r"url\(data:image/png;base64,([^)]+)\)", page)[1]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(sprite))))
    height, width, columns = data["height"], data["width"], data["columns"]
    tops = [
        (place // columns * height, place % columns * width) for place in range(len(data["images"]))
    ]
    return data, np.stack([sheet[y : y + height, x : x + width] for y, x in tops])


def test_images_come_misclassified_first_then_least_sure(made: Data):
    test, probabilities = made
    data, shown = content(errors.page(test, probabilities))
    indices = [int(image["name"].removeprefix("#")) - 1000 for image in data["images"]]
    assert sorted(indices) == list(range(60))
    np.testing.assert_array_equal(shown, test.images[indices])
    confidence, guess = probabilities.max(axis=1)[indices], probabilities.argmax(axis=1)
    wrong = (guess != test.labels)[indices]
    count = wrong.sum()
    assert 5 < count < 55
    assert wrong[:count].all()
    assert (np.diff(confidence[:count]) <= 0).all()
    assert (np.diff(confidence[count:]) >= 0).all()
    for index, image in zip(indices, data["images"], strict=True):
        assert (image["label"], image["predicted"]) == (test.labels[index], guess[index])
        assert image["disputed"] == (index == 3)
    for label, predicted_as in ((0, 0), (0, 2), (2, 1)):
        both = (test.labels == label) & (guess == predicted_as)
        assert data["counts"][label][predicted_as] == both.sum()


def test_grey_images_and_names_of_files(tmp_path: Path):
    made = predicted(9, ("ant", "bee"), shape=(28, 28, 1))
    files = [f"ant/{number}.png" for number in range(9)]
    data, shown = content(errors.page(*made, files))
    indices = [files.index(image["name"]) for image in data["images"]]
    np.testing.assert_array_equal(shown, made.test.images[indices, :, :, 0])


def test_of_more_images_than_fit_the_first_are_shown(made: Data, monkeypatch):
    monkeypatch.setattr(errors, "MOST", 20 * 30 * 7)
    data, shown = content(errors.page(*made))
    assert len(shown) == len(data["images"]) == 7
    assert "here: the 7 " in data["title"]
    assert np.sum(data["counts"]) == 60


def test_a_click_on_a_number_shows_its_images(made: Data, tmp_path: Path, tab: Tab):
    (tmp_path / "errors.html").write_text(errors.page(*made), encoding="utf-8")
    tab.open(tmp_path / "errors.html")
    names = "Array.from(document.querySelectorAll('figcaption'), (each) => each.innerText)"
    assert len(tab.run(names)) == 60
    heads = tab.run("Array.from(document.querySelectorAll('th'), (each) => each.textContent)")
    assert heads == ["", *CLASSES, *CLASSES]
    guess = made.probabilities.argmax(axis=1)
    for label, predicted_as in ((0, 2), (1, 1)):
        cell = f"document.querySelectorAll('tbody tr')[{label}].cells[{predicted_as + 1}]"
        tab.run(f"{cell}.querySelector('button').click()")
        both = np.flatnonzero((made.test.labels == label) & (guess == predicted_as))
        assert int(tab.run(f"{cell}.textContent")) == len(both)
        captions = tab.run(names)
        assert {caption.split()[0] for caption in captions} == {f"#{1000 + i}" for i in both}
        assert all(CLASSES[predicted_as] in caption for caption in captions)
    assert not tab.faults()
    assert not [
        request
        for request in tab.happened("Network.requestWillBeSent")
        if not request["request"]["url"].startswith(("file:", "data:"))
    ]
