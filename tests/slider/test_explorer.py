"""The age slider's logic: ages between groups, the way back, faces in pictures of every kind."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import ageflow
from ageflow.config import ParameterError
from ageflow.data.pictures import open_image
from ageflow.data.records import PAPER_GROUPS
from ageflow.evaluation.methods import load_method
from ageflow.slider import AgeSlider, Explorer, View
from ageflow.translation.ages import age_to_weights
from ageflow.translation.methods import METHODS
from tests import tiny
from tests.conftest import Run
from tests.slider.conftest import astronaut, in_format, two_faces


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean difference of two faces, of 255."""
    return float((one.float() - other.float()).abs().mean())


def test_weights_are_one_hot_at_the_centres_and_linear_between():
    weights = torch.stack([age_to_weights(age) for age in (*PAPER_GROUPS.centres, 20, 65, 28.5, 51.25)])
    expected = [*np.eye(4), [1, 0, 0, 0], [0, 0, 0, 1], [2 / 3, 1 / 3, 0, 0], [0, 0, 0.5, 0.5]]
    torch.testing.assert_close(weights, torch.tensor(np.array(expected), dtype=torch.float32))


@pytest.mark.parametrize("name", METHODS)
def test_it_is_the_methods_own_translation_of_ages_together_or_alone(explorer: Explorer, smoke_run: Run, name: str):
    portrait, ages = explorer.portrait(1), (21.0, 45.5, 65.0)
    method = load_method(name, "demo", "smoke", smoke_run.workspace.runs_root, explorer.settings.device)
    attributes = {key: [value] for key, value in portrait.attributes.items()}
    own = age_to_weights(portrait.own_age)[None]
    expected = ageflow.to_uint8(method.translate(portrait.image[None], torch.tensor([2]), own, attributes))[0].cpu()
    together = explorer.at_ages(View(portrait, 40.0, name), ages)
    alone = torch.stack([explorer.at_age(View(portrait, age, name)) for age in ages])
    assert (together.int() - alone.int()).abs().max() <= 1
    assert (alone[1].int() - expected.int()).abs().max() <= 1


def test_the_face_changes_with_the_age_little_by_little(explorer: Explorer):
    faces = explorer.at_ages(View(explorer.portrait(0), 40.0, "glow"), np.arange(25, 57.5, 0.5))
    whole = apart(faces[-1], faces[0])
    assert whole > 1
    assert max(apart(later, earlier) for later, earlier in zip(faces[1:], faces, strict=False)) < whole / 4


@pytest.mark.parametrize("method", METHODS)
def test_strength_is_how_much_of_the_way_a_face_goes(explorer: Explorer, method: str):
    portrait = explorer.portrait(0)
    assert torch.equal(explorer.at_age(View(portrait, portrait.own_age, "glow")), portrait.image)
    none, quarter, half, whole = (
        apart(explorer.at_age(View(portrait, 57.0, method, strength)), portrait.image)
        for strength in (0.0, 0.25, 0.5, 1.0)
    )
    assert none == 0
    assert quarter < half < whole


def test_the_exact_inverse_gives_the_face_back_every_value(explorer: Explorer):
    for number in range(min(8, len(explorer))):
        portrait = explorer.portrait(number)
        for method in ("glow", "glow+attribute", "ageflow"):
            for age, strength in ((20.0, 1.0), (40.0, 0.6), (70.0, 1.7)):
                view = View(portrait, age, method, strength)
                unmoved = torch.equal(explorer.at_age(view), portrait.image)
                assert not unmoved or age_to_weights(age).equal(age_to_weights(portrait.own_age))
                assert torch.equal(ageflow.to_uint8(explorer.back(view)), portrait.image)
        assert explorer.back(View(portrait, 40.0, "no_ictm")) is None


def test_the_judges_measure_what_is_shown(explorer: Explorer):
    portrait, other = explorer.portrait(0), explorer.portrait(1)
    same, different = explorer.cosines(portrait, torch.stack([portrait.image, other.image]))
    assert same == pytest.approx(1, abs=1e-5)
    assert different < 0.999
    age, attributes = explorer.estimate(portrait.image)
    assert PAPER_GROUPS.centres[0] <= age <= PAPER_GROUPS.centres[-1]
    assert set(attributes) == {"gender"}


def test_a_photograph_is_aligned_and_judged(explorer: Explorer):
    (portrait,) = explorer.portraits_in(open_image(in_format(astronaut(), "JPEG", quality=95)))
    assert portrait.image.shape == (3, explorer.faces.image_size, explorer.faces.image_size)
    assert portrait.image.dtype == torch.uint8
    assert 25 <= portrait.age <= 57
    assert portrait.attributes["gender"] in ("female", "male")


def test_two_faces_are_both_found_from_left_to_right(explorer: Explorer):
    (alone,) = explorer.portraits_in(open_image(in_format(astronaut(), "PNG")))
    first, second = explorer.portraits_in(open_image(in_format(two_faces(), "PNG")))
    assert apart(first.image, alone.image) < 10
    assert apart(second.image.flip(2), alone.image) < 10
    assert apart(second.image, alone.image) > 20


def test_a_run_on_faces_without_ages_is_refused_in_words(tmp_path: Path):
    folder = tmp_path / "demo" / "tiny" / "faces"
    tiny.write_faces(folder)
    pd.read_parquet(folder / "faces.parquet").assign(age=np.nan, group=-1).to_parquet(folder / "faces.parquet")
    settings = tiny.settings_of("age_slider", tmp_path)
    with pytest.raises(ParameterError, match="demo/tiny: its data set has no ages"):
        Explorer(settings)
    assert "has no ages" in AgeSlider(settings).problem
