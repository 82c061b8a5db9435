"""Pictures from files, arrays and standard input, as grey levels: what a viewer would show of them.

Files are read whole before they are decoded: Pillow maps uncompressed TIFF files into memory where
it can, and then ignores their orientation.
"""

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, ImageSequence, PngImagePlugin, UnidentifiedImageError

from stages.base.stage import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif")
LARGEST = 64_000_000  # pixels: more than phones' cameras have by default, less than a bomb
LONG = 1600  # pixels of the longer side that are looked at: a digit 4 mm high on A4 has 20
SHORT = 400  # a smaller picture is enlarged to this
OUTLIERS = 0.02  # percent of the darkest and brightest pixels of 16 bits that may be dead ones

Picture = str | Path | BinaryIO | np.ndarray | Image.Image

# Of a PNG's text and colour profile, which are not used, Pillow refuses more than 1 MB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 * 2**20


def load(source: Picture) -> list[tuple[np.ndarray, float]]:
    """A picture's pages as grey levels, upright, of a size at which digits are found.

    A TIFF file may have many pages; of an animation the last frame with anything on it is the page.

    Args:
        source: a path, an open file, a Pillow image, or an array: uint8, or float in [0, 1], of
            shape (height, width) or (height, width, 1, 3 or 4).

    Returns:
        For each page: the picture, uint8, shape (height, width); how many of its pixels are one of
        the source's (as it is seen when upright).

    Raises:
        UserError: there is no such file, or it is no picture, damaged, or too large.
    """
    return [
        (np.asarray(small.convert("L")), scale) for small, scale in pages_of(source, "L", SHORT)
    ]


def pages_of(source: Picture, mode: str, least: int = 1) -> list[tuple[Image.Image, float]]:
    """As `load`, as Pillow images of 8 bits, grey ("L") or in colour ("RGB").

    Args:
        least: pixels to which the longer side is enlarged if it is smaller.
    """
    if isinstance(source, np.ndarray):
        source = from_array(source)
    is_file = not isinstance(source, Image.Image)
    name = str(source) if isinstance(source, str | Path) else "picture"
    try:
        if not is_file:
            return [scaled(source, mode, least)]
        data = Path(source).read_bytes() if isinstance(source, str | Path) else source.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return decoded(data, mode, least)
            except UnidentifiedImageError:
                raise
            except OSError:
                return decoded(with_end(data), mode, least)
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except Image.DecompressionBombError:
        raise UserError(f"{name}: more than {LARGEST // 10**6} million pixels") from None
    except UnidentifiedImageError:
        raise UserError(f"{name}: not a picture in a format that can be loaded") from None
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or f'damaged picture ({error})'}") from None
    except (ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError) as error:
        raise UserError(f"{name}: damaged picture ({error})") from None


def decoded(data: bytes, mode: str, least: int) -> list[tuple[Image.Image, float]]:
    """The pages of a file; HEIC, which has a library of its own, is tried last."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        from pillow_heif import register_heif_opener

        register_heif_opener()
        image = Image.open(io.BytesIO(data), formats=["HEIF"])
    with image:
        if image.format == "TIFF":
            return [scaled(page, mode, least) for page in ImageSequence.Iterator(image)]
        if getattr(image, "n_frames", 1) > 1 and image.format != "HEIF":
            frames = (frame.convert("RGBA") for frame in ImageSequence.Iterator(image))
            *_, image = [image, *(each for each in frames if len(each.getcolors(2) or "many") > 1)]
        width = image.width
        if image.format == "JPEG" and image.width * image.height <= LARGEST:
            image.draft(mode, (LONG, LONG))  # decoded at a fraction of its size
        small, scale = scaled(image, mode, least)
        return [(small, scale * image.width / width)]


def with_end(data: bytes) -> bytes:
    """A JPEG file whose last bytes are missing, completed.

    Whatever follows the last pixel is ignored; so if what is appended changes more than a few
    pixels, more was missing.

    Raises:
        OSError: it did.
    """
    if not data.startswith(b"\xff\xd8"):
        raise OSError("it ends too early")
    ends = [data + filler * 64 + b"\xff\xd9" for filler in (b"", b"\x55", b"\xaa")]
    first, *others = (np.asarray(Image.open(io.BytesIO(end)).convert("L")) for end in ends)
    if any((first != other).mean() > 0.01 for other in others):
        raise OSError("it ends too early")
    return ends[0]


def from_array(array: np.ndarray) -> Image.Image:
    """An array as a Pillow image, floats being rounded to 256 levels."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    coloured = array.ndim == 3 and array.shape[2] in (3, 4)
    if 0 in array.shape or not (array.ndim == 2 or coloured):
        raise UserError(
            f"expected an array of shape (height, width[, 3 or 4]), found {array.shape}"
        )
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating) or not (array >= 0).all() or array.max() > 1:
            raise UserError("expected an array of uint8, or of floats in [0, 1]")
        array = np.rint(255 * array).astype(np.uint8)
    return Image.fromarray(array)


def scaled(image: Image.Image, mode: str, least: int) -> tuple[Image.Image, float]:
    """One page as `pages_of` returns it; the image itself stays as it is."""
    if image.width * image.height > LARGEST:
        raise UserError(
            f"{image.width}×{image.height} pixels are more than {LARGEST // 10**6} million"
        )
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # 16 bits or more
        image = eight_bits(np.asarray(image, np.float32))
    if image.has_transparency_data:
        image = on_paper(image.convert("RGBA"))
    long = max(image.size)
    factor = min(1, LONG / long) * max(1, least / long)
    size = [max(1, round(length * factor)) for length in image.size]
    image = image.convert(mode).resize(size, Image.Resampling.BICUBIC, reducing_gap=2)
    return image, factor


def eight_bits(values: np.ndarray) -> Image.Image:
    """Levels of any range, stretched to 256; dead pixels don't count, nor what is not a number."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (OUTLIERS, 100 - OUTLIERS)) if len(finite) else (0, 1)
    if low == high:
        low, high = finite.min(initial=low), finite.max(initial=high)
    shares = np.clip((np.nan_to_num(values, nan=high) - low) / max(high - low, 1e-30), 0, 1)
    return Image.fromarray(np.uint8(255 * shares))


def on_paper(image: Image.Image) -> Image.Image:
    """A picture with transparent parts, on what it shows up on: white, or black for light ink."""
    grey, alpha = (np.asarray(band, np.float32) for band in image.convert("LA").split())
    if not alpha.any():  # a fourth byte that nobody set
        return image.convert("RGB")
    paper = 255 if (grey * alpha).sum() / alpha.sum() < 128 else 0
    behind = Image.new("RGBA", image.size, (paper, paper, paper, 255))
    return Image.alpha_composite(behind, image)


def files_in(argument: str) -> list[Path | BinaryIO]:
    """What an argument of the command stands for: a file, a folder's pictures, a glob, `-`.

    Hidden files and folders are left out, as a Mac's `._photo.jpg`, which is no picture.

    Raises:
        UserError: there is nothing.
    """
    import glob
    import sys

    if argument == "-":
        return [io.BytesIO(sys.stdin.buffer.read())]
    path = Path(argument)
    if path.is_dir():
        found = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not found:
            raise UserError(f"{argument}: no picture in this folder")
        return found
    if not path.exists() and glob.has_magic(argument):
        found = sorted(map(Path, glob.glob(argument, recursive=True)))
        if not found:
            raise UserError(f"{argument}: no file matches")
        return found
    return [path]
