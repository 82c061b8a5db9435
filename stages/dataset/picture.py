"""A picture file as an image of a dataset: upright, on white, of one size.

`prepare` is the one function that does it, for the images that a model is trained on and for those
that it classifies later. A picture that has the size already keeps its pixels.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.base.stage import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")  # and HEIF
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SUFFIXES |= {".avif", ".heic", ".heif"}
LARGEST = 120_000_000  # pixels: more than most cameras', less than a file made to fill the memory
FAULTS = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error)


class NotLoadedError(UserError):
    """A file cannot be loaded as a picture; the message is the reason, without the name."""


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture. Its content tells the format, not its name.

    Raises:
        NotLoadedError: the file is missing, no picture, damaged or too large. That may show only
            in the block, where its pixels are decoded.
    """
    Image.MAX_IMAGE_PIXELS = LARGEST // 2  # Pillow refuses twice as many
    try:
        # From an open file: Pillow would map a TIFF file into memory, and then not turn it upright.
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")  # of odd metadata
            try:
                picture = Image.open(file, formats=FORMATS)
            except UnidentifiedImageError:
                from pillow_heif import register_heif_opener  # here: it is rarely needed

                register_heif_opener()
                picture = Image.open(file, formats=["HEIF"])
            yield picture
    except UnidentifiedImageError:
        raise NotLoadedError("not a picture in a format that can be loaded") from None
    except Image.DecompressionBombError:
        raise NotLoadedError(f"more than {LARGEST // 10**6} million pixels") from None
    except FAULTS as error:
        reason = getattr(error, "strerror", None) or f"damaged ({' '.join(str(error).split())})"
        raise NotLoadedError(reason) from None


def prepare(picture: Image.Image, shape: tuple[int, int, int], fit: str) -> np.ndarray:
    """The image that a model sees of a picture, upright, transparency on white.

    A picture of that size stays as it is. Shrinking averages areas; enlarging interpolates.

    >>> with opened(Path("rose.jpg")) as picture:
    ...     image = prepare(picture, (64, 64, 3), "crop")

    Args:
        picture: of any mode and size; its first frame is taken.
        shape: of the image: height, width, channels (1 or 3).
        fit: "crop" cuts off the longer side, "pad" repeats the picture's edge beside the shorter.

    Returns:
        uint8, of that shape.
    """
    height, width, channels = shape
    least = 2 * max(height, width)
    picture.draft(None, (least, least))  # a large JPEG is decoded at a fraction of its size
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode.startswith(("I", "F")):  # 16 bits or more
        picture = _in_8_bits(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    choose = max if fit == "crop" else min
    scale = choose(width / picture.width, height / picture.height)
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    if fit == "crop":
        # Not below 0 by rounding.
        across, down = (
            max(0, (whole - part / scale) / 2)
            for whole, part in zip(picture.size, (width, height), strict=True)
        )
        box = (across, down, picture.width - across, picture.height - down)
        image = np.asarray(picture.resize((width, height), method, box))
    else:
        inner = [max(1, round(side * scale)) for side in picture.size]
        image = np.asarray(picture.resize(inner, method))
        rest = (height - image.shape[0], width - image.shape[1], 0)
        image = np.pad(image, [(each // 2, each - each // 2) for each in rest], mode="edge")
    return image if channels == 3 else grey(image)[..., np.newaxis]


def grey(images: np.ndarray) -> np.ndarray:
    """Images without colour (ITU-R 601, as Pillow does), uint8, shape (..., height, width)."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    return np.uint8((images @ weights + 0x8000) >> 16)


def _in_8_bits(picture: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(picture, np.float64))
    low, high = (0, 65535) if picture.mode.startswith("I") else (0, 1)
    if not low <= values.min() <= values.max() <= high:
        low, high = values.min(), values.max()
    return Image.fromarray(np.uint8(np.rint(255 * (values - low) / max(high - low, 1e-9))))
