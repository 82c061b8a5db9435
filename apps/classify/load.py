"""Pictures from files, arrays and standard input, as grey levels in [0, 1]."""

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.base.stage import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif")
LARGEST = 64_000_000  # pixels: more than phones' cameras have by default, less than a bomb
LONG = 1600  # pixels of the longer side that are looked at: a digit 4 mm high on A4 has 20
SHORT = 400  # a smaller picture is enlarged to this

Picture = str | Path | BinaryIO | np.ndarray | Image.Image


def load(source: Picture) -> tuple[np.ndarray, float]:
    """A picture as grey levels, upright, of a size at which digits are found.

    Args:
        source: a path, an open file, a Pillow image, or an array: uint8, or float in [0, 1], of
            shape (height, width) or (height, width, 1, 3 or 4).

    Returns:
        picture: uint8, shape (height, width).
        scale: of its pixels for one of the source's (as it is seen when upright).

    Raises:
        UserError: there is no such file, or it is no picture, damaged, or too large.
    """
    if isinstance(source, np.ndarray):
        source = from_array(source)
    if isinstance(source, Image.Image):
        return grey_levels(source)
    name = source if isinstance(source, str | Path) else "standard input"
    try:
        with warnings.catch_warnings(), opened(source) as image:
            warnings.simplefilter("ignore")
            return grey_levels(image)
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except Image.DecompressionBombError:
        raise UserError(f"{name}: more than {LARGEST // 10**6} million pixels") from None
    except UnidentifiedImageError:
        raise UserError(f"{name}: no picture in a format that can be loaded") from None
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or f'damaged picture ({error})'}") from None
    except (ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError) as error:
        raise UserError(f"{name}: damaged picture ({error})") from None


def opened(source: str | Path | BinaryIO) -> Image.Image:
    """Open a picture; HEIC, which has a library of its own, is tried last."""
    try:
        return Image.open(source, formats=FORMATS)
    except UnidentifiedImageError:
        from pillow_heif import register_heif_opener

        register_heif_opener()
        return Image.open(source, formats=["HEIF"])


def from_array(array: np.ndarray) -> Image.Image:
    """An array as a Pillow image, floats being rounded to 256 levels."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if (
        array.ndim not in (2, 3)
        or 0 in array.shape
        or array.ndim == 3
        and array.shape[2] not in (3, 4)
    ):
        raise UserError(
            f"expected an array of shape (height, width[, 3 or 4]), found {array.shape}"
        )
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating) or not (array >= 0).all() or array.max() > 1:
            raise UserError("expected an array of uint8, or of floats in [0, 1]")
        array = np.rint(255 * array).astype(np.uint8)
    return Image.fromarray(array)


def grey_levels(image: Image.Image) -> tuple[np.ndarray, float]:
    """A Pillow image as `load` returns it."""
    if image.width * image.height > LARGEST:
        raise UserError(
            f"{image.width}×{image.height} pixels are more than {LARGEST // 10**6} million"
        )
    width = image.width
    image.draft("L", (LONG, LONG))  # a JPEG is decoded at a fraction of its size
    scale = image.width / width
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # 16 bits or more
        values = np.asarray(image, np.float32)
        low, high = values.min(), values.max()
        image = Image.fromarray(np.uint8(255 * (values - low) / max(high - low, 1)))
    factor = min(1, LONG / max(image.size)) * max(1, SHORT / max(image.size))
    size = [max(1, round(length * factor)) for length in image.size]
    if image.has_transparency_data:
        image = image.convert("LA")
        grey, alpha = (np.asarray(band, np.float32) for band in image.split())
        ink = (grey * alpha).sum() / max(alpha.sum(), 1)
        behind = Image.new("LA", image.size, (255 if ink < 128 else 0, 255))  # what it shows up on
        image = Image.alpha_composite(behind.convert("RGBA"), image.convert("RGBA"))
    image = image.convert("L").resize(size, Image.Resampling.BICUBIC, reducing_gap=2)
    return np.asarray(image), scale * factor


def files_in(argument: str) -> list[Path | BinaryIO]:
    """What an argument of the command stands for: a file, a folder's pictures, a glob, `-`.

    Raises:
        UserError: there is nothing.
    """
    import glob
    import sys

    if argument == "-":
        return [io.BytesIO(sys.stdin.buffer.read())]
    path = Path(argument)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not found:
            raise UserError(f"{argument}: no picture in this folder")
        return found
    if not path.exists() and glob.has_magic(argument):
        found = sorted(map(Path, glob.glob(argument, recursive=True)))
        if not found:
            raise UserError(f"{argument}: no file matches")
        return found
    return [path]
