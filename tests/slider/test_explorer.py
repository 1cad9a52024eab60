"""The age slider's logic: ages between groups, ways back, faces of pictures of every kind."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

import ageflow
from ageflow.config import ParameterError
from ageflow.run import MissingArtefactError
from ageflow.slider import GROUP_CENTRES, AgeSlider, Explorer, NoFaceError, age_to_weights
from ageflow.training.glow import train_glow
from ageflow.translation.latents import encode_faces
from ageflow.translation.methods import METHODS, load_method
from ageflow.translation.prototypes import compute_prototypes
from tests.conftest import Run
from tests.slider.conftest import astronaut, in_format, slider_settings
from tests.training.processes import with_faces

WITH_AN_INVERSE = ("glow", "glow+attribute", "ageflow")


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
    own = age_to_weights(portrait.own)[None]
    for name in METHODS:
        method = load_method(name, "demo", "smoke", smoke_run.workspace.runs_root, explorer.settings.device)
        attributes = {key: [value] for key, value in portrait.attributes.items()}
        expected = method.translate(portrait.image[None], torch.tensor([2]), own, attributes)
        found = explorer.at_age(portrait, 45.5, name)
        assert (found.int() - ageflow.to_uint8(expected)[0].cpu().int()).abs().max() <= 1


def test_the_face_changes_with_the_age_little_by_little(explorer: Explorer):
    portrait = explorer.portrait(0)
    ages = np.arange(25, 57.5, 0.5)
    faces = explorer.at_ages(portrait, ages, "glow").float()
    whole = (faces[-1] - faces[0]).abs().mean()
    steps = (faces[1:] - faces[:-1]).abs().mean(dim=(1, 2, 3))
    assert whole > 1
    assert steps.max() < whole / 4


def test_ages_decoded_together_are_the_same_as_one_by_one(explorer: Explorer):
    portrait = explorer.portrait(0)
    ages = (21.0, 40.0, 65.0)
    for name in METHODS:
        together = explorer.at_ages(portrait, ages, name)
        alone = torch.stack([explorer.at_age(portrait, age, name) for age in ages])
        assert (together.int() - alone.int()).abs().max() <= 1


def test_strength_is_how_much_of_the_way_a_face_goes(explorer: Explorer):
    portrait = explorer.portrait(0)

    def moved(method: str, strength: float | None) -> float:
        return float((explorer.at_age(portrait, 57, method, strength).float() - portrait.image).abs().mean())

    for method in METHODS:
        assert moved(method, 0.0) == 0
        assert moved(method, 0.25) < moved(method, 0.5) < moved(method, 1.0)
        assert moved(method, 1.0) == moved(method, None)
    assert explorer.scale == ageflow.settings("train_ictm", {"preset": "smoke"}).scale


def test_the_exact_inverse_gives_the_face_back_every_value(explorer: Explorer):
    for number in range(min(8, len(explorer))):
        portrait = explorer.portrait(number)
        for method in WITH_AN_INVERSE:
            for age, strength in ((20.0, 1.0), (40.0, 0.6), (70.0, 1.7)):
                moved = explorer.at_age(portrait, age, method, strength)
                assert not torch.equal(moved, portrait.image) or age_to_weights(age).equal(age_to_weights(portrait.own))
                assert torch.equal(ageflow.to_uint8(explorer.back(portrait, age, method, strength)), portrait.image)
        assert explorer.back(portrait, 40.0, "no_ictm") is None


def test_where_nothing_is_asked_of_a_direction_it_does_not_move(explorer: Explorer):
    portrait = explorer.portrait(2)
    assert torch.equal(explorer.at_age(portrait, portrait.own, "glow"), portrait.image)


def test_the_judges_read_what_is_shown(explorer: Explorer):
    portrait = explorer.portrait(0)
    same = explorer.read(portrait, portrait.image)
    assert same.cosine == pytest.approx(1, abs=1e-5)
    assert same.embedder == "dlib"
    assert GROUP_CENTRES[0] <= same.age <= GROUP_CENTRES[-1]
    other = explorer.read(portrait, explorer.portrait(1).image)
    assert other.cosine < same.cosine


def test_a_photograph_is_aligned_and_judged(explorer: Explorer):
    (portrait,) = explorer.uploaded(in_format(astronaut(), "JPEG", quality=95))
    side = explorer.faces.image_size
    assert portrait.image.shape == (3, side, side)
    assert portrait.image.dtype == torch.uint8
    assert 25 <= portrait.age <= 57
    assert portrait.attributes["gender"] in ("female", "male")
    for name in METHODS:
        assert explorer.at_age(portrait, 60, name).shape == portrait.image.shape


def test_cmyk_and_turned_photographs_give_the_same_face(explorer: Explorer):
    (plain,) = explorer.uploaded(in_format(astronaut(), "JPEG", quality=95))
    tag = Image.Exif()
    tag[0x0112] = 6  # to be turned clockwise
    turned = in_format(astronaut().rotate(90, expand=True), "JPEG", quality=95, exif=tag)
    cmyk = in_format(astronaut().convert("CMYK"), "JPEG", quality=95)
    for content in (turned, cmyk):
        (found,) = explorer.uploaded(content)
        assert (found.image.float() - plain.image.float()).abs().mean() < 5


def test_two_faces_are_both_found_from_left_to_right(explorer: Explorer):
    (alone,) = explorer.uploaded(in_format(astronaut(), "PNG"))
    both = Image.new("RGB", (860, 512))
    crop = astronaut().crop((0, 0, 430, 512))
    both.paste(crop, (0, 0))
    both.paste(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (430, 0))
    first, second = explorer.uploaded(in_format(both, "PNG"))
    assert (first.image.float() - alone.image.float()).abs().mean() < 10
    assert (second.image.flip(2).float() - alone.image.float()).abs().mean() < 10
    assert (second.image.float() - alone.image.float()).abs().mean() > 20


REFUSED = {
    "a text file renamed": (b"this is no picture at all\n", "does not open as a picture"),
    "an empty file": (b"", "empty"),
    "cut short": (in_format(astronaut(), "JPEG")[:2000], "does not open as a picture"),
    "one pixel": (in_format(Image.new("RGB", (1, 1)), "PNG"), "too small, 1×1"),
    "no face": (in_format(Image.new("RGB", (300, 200), (90, 90, 90)), "PNG"), "no face"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_face_is_refused_in_words(explorer: Explorer, name: str):
    content, words = REFUSED[name]
    with pytest.raises(NoFaceError, match=words):
        explorer.uploaded(content)


def test_a_picture_of_144_million_pixels_is_refused_before_it_is_decoded(explorer: Explorer):
    content = in_format(Image.new("1", (12_000, 12_000)), "PNG")
    with pytest.raises(NoFaceError, match=r"12000×12000.*million pixels: shrink it"):
        explorer.uploaded(content)


def test_without_a_trained_run_it_says_which_notebook_to_run(tmp_path):
    with pytest.raises(MissingArtefactError, match=r"run 01_prepare_data\.ipynb first"):
        Explorer(ageflow.settings("age_slider", {"runs_root": tmp_path}))


@pytest.fixture
def tiny(tmp_path):
    """A run on tiny faces up to its averages, of which only women are known: its settings, and its faces' table."""
    folder = with_faces(tmp_path, "tiny").path("faces")
    table = pd.read_parquet(folder / "faces.parquet")
    table.assign(gender="female").to_parquet(folder / "faces.parquet")
    given = {"preset": "smoke", "runs_root": tmp_path, "run": "tiny", "progress": False}
    train_glow(ageflow.settings("train_glow", given | {"iterations": 2}))
    averages = ageflow.settings("prototypes", given)
    compute_prototypes(averages, encode_faces(averages))
    return ageflow.settings("age_slider", given), folder / "faces.parquet"


def test_where_all_are_women_the_averages_of_women_are_taken(tiny):
    explorer = Explorer(tiny[0])
    portrait = explorer.portrait(0)
    assert "female" not in portrait.about, "of nobody there is it told, as it tells nobody apart"
    plain, women = (explorer.at_age(portrait, 60, method) for method in ("glow", "glow+attribute"))
    assert (plain.int() - women.int()).abs().max() <= 1


def test_an_own_picture_is_judged_by_whom_notebook_05_trained(smoke_run: Run, tmp_path: Path):
    """Whatever attributes the test half has: here none is known of it, and no judge of race was trained."""
    run = tmp_path / "demo" / "smoke"
    shutil.copytree(smoke_run.workspace.root, run)
    table = run / "faces" / "faces.parquet"
    faces = parquet.read_table(table)
    rows = faces.to_pandas()
    rows.loc[rows["split"] == "test", "gender"] = None
    rows["race"] = ["a", "b"] * (len(rows) // 2)
    parquet.write_table(arrow.Table.from_pandas(rows, schema=faces.schema, preserve_index=False), table)
    explorer = Explorer(slider_settings(smoke_run, runs_root=tmp_path))
    (portrait,) = explorer.uploaded(in_format(astronaut(), "PNG"))
    assert portrait.attributes["gender"] in ("female", "male")
    assert portrait.attributes["race"] is None


def test_a_run_on_faces_without_ages_is_refused_in_words(tiny):
    settings, path = tiny
    pd.read_parquet(path).assign(age=np.nan, group=-1).to_parquet(path)
    with pytest.raises(ParameterError, match="demo/tiny: its data set tells no ages"):
        Explorer(settings)
    slider = AgeSlider(settings)
    assert "tells no ages" in slider.parts.problem_text
