"""Picture files of every kind: decoded rightly or refused with a reason."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ageflow.data.pictures import MOST_PIXELS, open_image, read_picture

SIDE = 24


@pytest.fixture
def picture() -> Image.Image:
    """A gradient: red grows to the right, green downwards."""
    ramp = np.linspace(0, 255, SIDE).round().astype(np.uint8)
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = ramp[None], ramp[:, None]
    return Image.fromarray(pixels)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def off(content: bytes, picture: Image.Image) -> float:
    """Largest difference of the decoded picture, of 255."""
    return float(np.abs(np.asarray(open_image(content), float) - np.asarray(picture, float)).max())


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "ppm"])
def test_what_keeps_every_value_comes_back(picture, kind):
    assert off(saved(picture, kind), picture) == 0


def test_cmyk_has_the_same_colours(picture):
    assert off(saved(picture.convert("CMYK"), "tiff"), picture) <= 2


def test_sixteen_bits_are_scaled_not_clipped(picture):
    grey = picture.convert("L")
    assert off(saved(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "png"), grey.convert("RGB")) == 0


def test_a_palette_picture_has_its_colours(picture):
    few = picture.quantize(32)
    assert off(saved(few, "png"), few.convert("RGB")) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(picture, orientation):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the viewer will undo
    stored = picture if orientation == 1 else picture.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert off(saved(stored, "png", exif=exif), picture) == 0


def test_transparent_parts_become_black(picture):
    clear = picture.convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat(np.uint8([[0, 255]]), SIDE // 2, axis=1).repeat(SIDE, axis=0)))
    pixels = np.asarray(open_image(saved(clear, "png")))
    assert (pixels[:, : SIDE // 2] == 0).all()
    np.testing.assert_array_equal(pixels[:, SIDE // 2 :], np.asarray(picture)[:, SIDE // 2 :])


def test_several_pictures_in_one_file_are_refused(picture):
    frames = {"save_all": True, "append_images": [picture.rotate(90)]}
    for kind in ("gif", "tiff", "webp"):
        with pytest.raises(ValueError, match="holds several pictures"):
            open_image(saved(picture, kind, **frames))


def test_a_bomb_is_refused_by_its_header(picture):
    """A BMP whose header says 40,000 × 40,000 pixels; decoded, it would take 4.8 GB."""
    bomb = bytearray(saved(picture, "bmp"))
    bomb[18:26] = struct.pack("<ii", 40_000, 40_000)
    with pytest.raises(ValueError, match=f"more than {MOST_PIXELS // 10**6} million pixels: shrink it"):
        open_image(bytes(bomb))


def test_damaged_and_foreign_content_is_refused(picture):
    whole = saved(picture, "jpeg")
    for content in (b"", b"not a picture", whole[: len(whole) // 2], b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        with pytest.raises(ValueError, match="does not open as a picture"):
            open_image(content)
    with pytest.raises(ValueError, match="no agreed white"):
        open_image(saved(Image.new("F", (8, 8)), "tiff"))


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("pipe.jpg", "a pipe or a device, not a file"),
        ("folder.jpg", "it is a folder"),
        ("loop.jpg", "cannot be read: Too many levels of symbolic links"),
        ("/etc/passwd", "leads out of the data folder"),
        ("nul\0.jpg", "cannot be read"),
    ],
    ids=lambda text: text[:15].replace("\0", ""),
)
def test_what_is_no_ordinary_file_is_refused_without_waiting(tmp_path: Path, file: str, reason: str):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with pytest.raises(ValueError, match=reason):
        read_picture(tmp_path, file)
