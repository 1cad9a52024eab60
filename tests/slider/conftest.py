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
    held = io.BytesIO()
    picture.save(held, kind, **options)
    return held.getvalue()


def astronaut() -> Image.Image:
    """A photograph of a person, 512×512."""
    return Image.fromarray(skimage.data.astronaut())


def slider_settings(of: Run, **parameters: object) -> Slider:
    """Notebook 09's settings on a finished run, and `parameters`."""
    given = {"preset": of.workspace.run, "runs_root": of.workspace.runs_root, **parameters}
    return ageflow.settings("age_slider", given)


@pytest.fixture(scope="package")
def explorer(smoke_run: Run) -> Explorer:
    return Explorer(slider_settings(smoke_run))


@pytest.fixture
def slider(smoke_run: Run) -> Iterator[AgeSlider]:
    made = AgeSlider(slider_settings(smoke_run, age=40.0))
    assert made.wait()
    yield made
    made.wait()
