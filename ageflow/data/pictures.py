"""Picture files of any kind: read without being blocked, decoded without running out of memory.

What is decided here:

* A picture becomes upright, as its EXIF orientation says, and three colours of 8 bits.
* 16 bits are scaled to 8. 32-bit and floating-point pixels are refused: they have no agreed white.
* Transparent parts become black, as what lies outside a picture does in an aligned face.
* A file of several pictures (an animation, pages) is refused, because which is meant is not known; the previews that
  phones add to a JPEG (MPO) do not count.
* More than 100 million pixels or 256 MiB are refused before they are decoded.
"""

import contextlib
import io
import posixpath
import stat
import warnings
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 100_000_000
MOST_BYTES = 2**28
# Not all that Pillow knows: it hands EPS to Ghostscript, and no data set of faces comes in the others.
_WANTED = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
ENDINGS = tuple(ending for ending, kind in Image.registered_extensions().items() if kind in _WANTED)
_FORMATS = [kind for kind in _WANTED if kind in Image.OPEN]
_HEIC = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_TOO_LARGE = f"it has more than {MOST_PIXELS // 10**6} million pixels: shrink it"


def any_ending(path: str) -> str:
    """The path without a picture's ending: data sets are converted from one format to another.

    Example:
        >>> any_ending("a.b/c.JPG"), any_ending("a.b/c.d"), any_ending("c.jpg.chip.jpg")
        ('a.b/c', 'a.b/c.d', 'c.jpg.chip')
    """
    stem, ending = posixpath.splitext(path)
    return stem if ending.casefold() in ENDINGS else path


def read_picture(root: Path, file: str) -> bytes:
    """The content of a picture file.

    Arguments:
        root: the data folder.
        file: path relative to it.

    Raises:
        ValueError: it cannot be read, is no ordinary file, is too large or lies outside `root`; the message says so.
    """
    if PurePath(file).is_absolute() or ".." in PurePath(file).parts:
        raise ValueError("the path leads out of the data folder")
    path = root / file
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for a writer
            raise ValueError("it is a folder, a pipe or a device, not a file")
        with path.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a ValueError is a name that no file can have
        raise ValueError(f"the file cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MOST_BYTES:
        raise ValueError(f"the file is larger than {MOST_BYTES // 2**20} MiB: shrink the picture")
    return content


def opens(path: Path) -> bool:
    """Whether a file begins as a picture does, whatever its name."""
    try:
        with Image.open(path, formats=_FORMATS):
            return True
    except Exception:  # as in `open_image`
        return False


def open_image(content: bytes) -> Image.Image:
    """Decode a picture: upright, RGB, as the head of this file says.

    Raises:
        ValueError: it is none, it is damaged, or it is refused; the message says so.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd metadata, about which it is decided here
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                _check(image)
                image.load()
                with contextlib.suppress(Exception):  # damaged metadata give no orientation: as good as none
                    ImageOps.exif_transpose(image, in_place=True)
                return _three_colours(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        none = f"it is none of {', '.join(_FORMATS)}"
        if content[4:8] == b"ftyp" and content[8:12] in _HEIC:
            none = "it is a HEIC picture, as phones take them, which Pillow cannot read: convert it to JPEG"
        known = {UnidentifiedImageError: none, Image.DecompressionBombError: _TOO_LARGE}
        reason = known.get(type(error)) or str(error) or type(error).__name__
        raise ValueError(f"the file does not open as a picture: {reason}") from None


def _check(image: Image.Image) -> None:
    """Refuse by what the header says."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(_TOO_LARGE)
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ValueError("it holds several pictures, and which is meant is not known: save that one")
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise ValueError(f"its pixels ({image.mode}) have no agreed white: save it with 8 or 16 bits a colour")


def _three_colours(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255. 0…65535 become 0…255, rounded.
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray(((values * 255 + 32767) // 65535).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
