"""The demo set: the same faces from the same seed, balanced, each identity at several ages."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ageflow
from ageflow.data.demo import YOUNGEST, FaceGenerator, Labeller, Studio, age_direction, counts_of, read, resolution_for
from ageflow.data.faces import Faces


def wanted(faces: int):
    return ageflow.settings("prepare_data", {"preset": "smoke", "faces": faces, "progress": False})


@pytest.fixture(scope="module")
def faces(demo_faces_folder: Path) -> Faces:
    return Faces.open(demo_faces_folder)


def test_exactly_as_many_faces_as_asked_for_and_a_larger_set_begins_with_a_smaller(smoke_workspace):
    small, large = read(wanted(40)), read(wanted(96))
    assert len(small.table) == 40
    assert len(large.table) == 96
    assert small.table.equals(large.table.iloc[:40])
    assert np.array_equal(small.landmarks, large.landmarks[:40])
    drawn = {str(file.relative_to(large.root)) for file in large.root.glob("round-*/*.png")}
    listed = [*large.table["file"], *(line.file for line in large.rejections)]
    assert len(listed) == len(set(listed))
    assert set(listed) <= drawn
    last = max(listed)
    assert {file for file in drawn if file <= last} == set(listed), "a drawn face is accepted or rejected, not dropped"


def test_the_seed_draws_the_same_faces_into_an_empty_cache(smoke_workspace, tmp_path: Path):
    kept = Studio(wanted(16).cache, seed=0, resolution=256)
    anew = Studio(tmp_path, seed=0, resolution=256)
    made = anew.round(0, counts_of([]))
    assert made == kept.round(0, counts_of([]))
    for face in made:
        one, other = (np.asarray(Image.open(studio.folder / face.file)) for studio in (anew, kept))
        assert np.array_equal(one, other)


def test_every_age_group_has_both_genders(faces):
    counts = faces.table.groupby(["group", "gender"]).size()
    assert (len(counts), counts.min() >= 4) == (8, True)
    assert len(faces.select(split="train").table.groupby(["group", "gender"])) == 8


def test_an_identity_has_several_ages_and_one_gender(faces):
    identities = faces.table.groupby("identity")
    assert (identities["gender"].nunique() == 1).all()
    assert identities.size().mean() > 2
    assert identities.size().max() == 3
    assert (identities["group"].nunique() > 1).mean() > 0.7
    assert faces.table["age"].min() >= YOUNGEST


def test_the_age_direction_ages():
    (direction, years_per_step), labeller, generator = age_direction(), Labeller(), FaceGenerator(256)
    assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-5)
    styles = generator.styles(np.random.default_rng(99).standard_normal((5, 512)))
    drawn = [generator.faces(styles + np.float32(move) * direction) for move in (0, 2)]
    ages = [[labeller.label(Image.fromarray(image)) for image in images] for images in drawn]
    added = [old.age - young.age for young, old in zip(*ages, strict=True) if young and old]
    assert np.mean(added) > years_per_step


def test_the_graph_cut_in_half_draws_the_same_face_smaller():
    draws = np.random.default_rng(4).standard_normal((2, 512))
    half, whole = FaceGenerator(512), FaceGenerator(1024)
    small, large = half.faces(half.styles(draws)), whole.faces(whole.styles(draws))
    difference = np.abs(large.reshape(2, 512, 2, 512, 2, 3).mean(axis=(2, 4)) - small)
    assert difference.mean() < 0.5, "grey levels of 255"
    assert np.quantile(difference, 0.999) < 3, "only where the generator leaves [-1, 1]"
    assert np.array_equal(small[:1], half.faces(half.styles(draws)[:1])), "a face does not depend on its company"
    assert [resolution_for(size) for size in (32, 64, 170, 171, 256, 512)] == [256, 256, 256, 512, 512, 1024]


def test_no_face_has_no_label():
    assert Labeller().label(Image.new("RGB", (256, 256), "grey")) is None
