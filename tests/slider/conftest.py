"""Real pictures to upload, and the slider of the smoke run."""

import io
from collections.abc import Iterator

import pytest
import skimage.data
from PIL import Image

import ageflow
from ageflow.config import Slider
from ageflow.slider import AgeSlider, Explorer
from tests.conftest import Run


def in_format(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The content of a picture file."""
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def astronaut() -> Image.Image:
    """A photograph of a person, 512×512."""
    return Image.fromarray(skimage.data.astronaut())


def two_faces() -> Image.Image:
    """The photograph, and beside it its mirror image."""
    both, crop = Image.new("RGB", (860, 512)), astronaut().crop((0, 0, 430, 512))
    both.paste(crop, (0, 0))
    both.paste(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (430, 0))
    return both


# Content of a file, and what is said of it.
REFUSED = {
    "an empty file": (b"", "does not open as a picture"),
    "a text file renamed": (b"this is no picture at all\n", "does not open as a picture"),
    "one pixel": (in_format(Image.new("RGB", (1, 1)), "PNG"), "no face was found in 1×1"),
    "no face": (in_format(Image.new("RGB", (300, 200), (90, 90, 90)), "PNG"), "no face was found in 300×200"),
    "a face larger than its picture": (
        in_format(astronaut().crop((185, 90, 265, 170)).resize((700, 700)), "PNG"),
        "of the aligned face would lie outside its picture",
    ),
    "144 million pixels": (in_format(Image.new("1", (12_000, 12_000)), "PNG"), "more than 100 million pixels"),
}


def slider_settings(of: Run, **parameters: object) -> Slider:
    """Notebook 09's settings on a finished run, and `parameters`."""
    given = {"preset": of.workspace.run, "runs_root": of.workspace.runs_root, **parameters}
    return ageflow.settings("age_slider", given)


@pytest.fixture(scope="package")
def explorer(smoke_run: Run) -> Explorer:
    return Explorer(slider_settings(smoke_run))


@pytest.fixture(scope="package")
def shared_slider(smoke_run: Run) -> AgeSlider:
    return AgeSlider(slider_settings(smoke_run, age=40.0))


@pytest.fixture
def slider(shared_slider: AgeSlider) -> Iterator[AgeSlider]:
    """A slider at 40 years by AgeFlow, on the first test face."""
    controls = shared_slider.controls
    controls.method.value, controls.strength.value, controls.age.value = "ageflow", 1.0, 40.0
    shared_slider._choose_from(range(len(shared_slider.explorer)))
    controls.thumbnails[0].click()
    assert shared_slider.wait()
    yield shared_slider
    assert shared_slider.wait()
