"""The age slider's logic, and its widgets without a browser."""

import io
import time
from datetime import datetime

import numpy as np
import pytest
import torch
from PIL import Image

import ageflow
from ageflow.explore import GROUP_CENTRES, AgeSlider, Explorer, NoFaceError, age_to_weights
from ageflow.translation.methods import METHODS, load_method
from ageflow.workspace import MissingArtefactError
from tests.conftest import Run


@pytest.fixture(scope="module")
def explorer(smoke_run: Run) -> Explorer:
    parameters = {"preset": "smoke", "runs_root": smoke_run.workspace.runs_root}
    return Explorer(ageflow.settings("age_slider", parameters))


def shown(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)))


def test_weights_are_one_hot_at_the_centres_and_linear_between():
    for group, centre in enumerate(GROUP_CENTRES):
        assert age_to_weights(centre).tolist() == [float(group == other) for other in range(4)]
    torch.testing.assert_close(age_to_weights(28.5), torch.tensor([2 / 3, 1 / 3, 0, 0]))
    torch.testing.assert_close(age_to_weights(51.25), torch.tensor([0, 0, 0.5, 0.5]))
    assert age_to_weights(20).tolist() == [1, 0, 0, 0]
    assert age_to_weights(65).tolist() == [0, 0, 0, 1]
    sweep = torch.stack([age_to_weights(age) for age in np.arange(15, 80, 0.25)])
    assert bool((sweep >= 0).all())
    torch.testing.assert_close(sweep.sum(1), torch.ones(len(sweep)))


def test_at_a_groups_centre_it_is_the_methods_own_translation(explorer: Explorer, smoke_run: Run):
    portrait = explorer.portrait(1)
    for name in METHODS:
        method = load_method(name, "demo", "smoke", smoke_run.workspace.runs_root, explorer.settings.device)
        attributes = {key: [value] for key, value in portrait.attributes.items()}
        expected = method.translate(portrait.image[None], torch.tensor([2]), torch.tensor([portrait.group]), attributes)
        found = explorer.at_age(portrait, 45.5, name)
        assert (found.int() - ageflow.to_uint8(expected)[0].cpu().int()).abs().max() <= 1


def test_the_face_changes_with_the_age_little_by_little(explorer: Explorer):
    portrait = explorer.portrait(0)
    ages = np.arange(25, 57.5, 0.5)
    faces = torch.stack([explorer.at_age(portrait, age, "glow") for age in ages]).float()
    whole = (faces[-1] - faces[0]).abs().mean()
    steps = (faces[1:] - faces[:-1]).abs().mean(dim=(1, 2, 3))
    assert whole > 1
    assert steps.max() < whole / 4


def test_an_own_picture_is_aligned_and_judged(explorer: Explorer):
    drawn = explorer.faces.images([0])[0].permute(1, 2, 0).numpy()
    # a face on a large canvas, upright by its EXIF tag only
    canvas = Image.new("RGB", (640, 480), (120, 130, 140))
    canvas.paste(Image.fromarray(drawn).resize((300, 300), Image.Resampling.BICUBIC), (200, 80))
    tag = Image.Exif()
    tag[0x0112] = 6
    held = io.BytesIO()
    canvas.rotate(90, expand=True).save(held, "JPEG", quality=95, exif=tag)
    portrait = explorer.uploaded(held.getvalue())
    side = explorer.faces.image_size
    assert portrait.image.shape == (3, side, side)
    original = torch.from_numpy(drawn).permute(2, 0, 1).float()
    assert (portrait.image.float() - original).abs().mean() < 25, "not the same face at the same place"
    assert portrait.group in range(4)
    assert portrait.attributes["gender"] in ("female", "male")
    for name in METHODS:
        assert explorer.at_age(portrait, 60, name).shape == portrait.image.shape


def test_a_picture_without_a_face_says_so(explorer: Explorer):
    held = io.BytesIO()
    Image.new("RGB", (300, 200), (90, 90, 90)).save(held, "PNG")
    with pytest.raises(NoFaceError, match="no face"):
        explorer.uploaded(held.getvalue())
    with pytest.raises(NoFaceError, match="no picture"):
        explorer.uploaded(b"GIF89a but not really")


def test_without_a_trained_run_it_says_which_notebook_to_run(tmp_path):
    with pytest.raises(MissingArtefactError, match=r"run 01_prepare_data\.ipynb first"):
        Explorer(ageflow.settings("age_slider", {"runs_root": tmp_path}))


def test_every_widget_changes_the_picture_and_a_bad_upload_leaves_it(explorer: Explorer):
    slider = AgeSlider(explorer)
    seen = [slider.aged.value]
    for widget, value in ((slider.age, 25.0), (slider.method, "glow"), (slider.face, 1), (slider.age, 60.0)):
        widget.value = value
        assert slider.aged.value not in seen, f"{widget.description} = {value} changes nothing"
        seen.append(slider.aged.value)
    assert slider.said.value == "at 60.0 years: 100% 51+"
    own = shown(slider.original.value)
    assert own.shape == (256, 256, 3)
    text = {
        "name": "a.txt",
        "type": "text/plain",
        "size": 1,
        "content": memoryview(b"x"),
        "last_modified": datetime.now(),
    }
    slider.upload.value = [text]
    assert "no picture" in slider.problem.value
    assert np.array_equal(shown(slider.original.value), own)
    slider.face.value = 0
    assert slider.problem.value == ""
    strip = slider.strip()
    assert strip.width > 7 * strip.height


def test_it_follows_the_hand(explorer: Explorer):
    slider = AgeSlider(explorer)
    started = time.perf_counter()
    for age in np.arange(25, 45, 1.0):
        slider.age.value = age
    assert (time.perf_counter() - started) / 20 < 0.3, "seconds a picture"
