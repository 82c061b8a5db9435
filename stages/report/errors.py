"""The page of errors: one HTML file, offline, with the test images behind each number of the
confusion matrix. What one finds there first, in a dataset of one's own, are wrong labels.
"""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from stages.base.data import Split
from stages.report import scores
from stages.report.pictures import as_seen, misclassified_first

TEMPLATE = Path(__file__).with_name("errors.html")
MOST = 2**24  # pixels of all images: the page has some megabytes and opens at once


def page(test: Split, probabilities: np.ndarray, files: list[str] | None = None) -> str:
    """The page's text.

    Of more images than MOST allows, it has the misclassified and the least confident ones; those of
    MNIST's test set all fit.

    Args:
        test: images and labels.
        probabilities: of their classes, shape (N, classes).
        files: names of the images' files, in the same order; else they are called by number.
    """
    predicted, info = probabilities.argmax(axis=1), test.info
    height, width, _ = info.shape
    order = np.concatenate(misclassified_first(test.labels, probabilities))
    shown = order[: max(1, MOST // (height * width))]
    columns = max(1, round((len(shown) * height / width) ** 0.5))
    errors = int((predicted != test.labels).sum())
    title = f"{info.name}: {errors:,} of {len(order):,} test images are misclassified"
    if len(shown) < len(order):
        title += f" (here: the {len(shown):,} misclassified or least confident ones)"
    images = [
        {
            "label": int(test.labels[index]),
            "predicted": int(predicted[index]),
            "confidence": scores.percent(float(probabilities[index].max()), 1),
            "name": files[index] if files else f"#{test.numbers[index]}",
            "disputed": int(test.numbers[index]) in info.disputed,
        }
        for index in shown.tolist()
    ]
    counts = scores.confusion_matrix(test.labels, predicted, len(info.classes)).tolist()
    data = {"title": title, "classes": info.classes, "counts": counts, "images": images}
    data |= {"columns": columns, "width": width, "height": height}
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # no name ends the script
    sprite = io.BytesIO()
    sheet(as_seen(test.images)[shown], columns).save(sprite, "png", compress_level=3)
    address = f"data:image/png;base64,{base64.b64encode(sprite.getvalue()).decode()}"
    before, between, after = TEMPLATE.read_text(encoding="utf-8").split("@@")
    return before + address + between + text + after


def sheet(images: np.ndarray, columns: int) -> Image.Image:
    """The images in rows on one, uint8, shape (N, height, width, 1 or 3)."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    tiles = np.zeros((rows * columns, height, width, channels), np.uint8)
    tiles[:count] = images
    whole = tiles.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    whole = whole.reshape(rows * height, columns * width, channels)
    return Image.fromarray(whole if channels == 3 else whole[..., 0])
