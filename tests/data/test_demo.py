"""The demo set: the same faces from the same seed, balanced, each identity at several ages."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ageflow
from ageflow.checkpoint import PRETRAINED
from ageflow.data.demo import (
    _TRAINED_ON,
    AIMS,
    LARGEST_MOVE,
    YOUNGEST,
    DemoFace,
    FaceGenerator,
    Labeller,
    Studio,
    _notes,
    age_direction,
    choose_moves,
    counts_of,
    read,
    resolution_for,
)
from ageflow.data.faces import Faces
from ageflow.data.records import age_group
from tests.conftest import ROOT

NO_FACES = counts_of([])


def wanted(faces: int, **more):
    return ageflow.settings("prepare_data", {"preset": "smoke", "faces": faces, "progress": False} | more)


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
    assert {file for file in drawn if file <= last} == set(listed), (
        "a drawn face is accepted or rejected, never dropped"
    )


def test_the_seed_draws_the_same_faces_into_an_empty_cache(smoke_workspace, tmp_path: Path):
    kept = Studio(wanted(16).cache, seed=0, resolution=256)
    anew = Studio(tmp_path, seed=0, resolution=256)
    made = anew.round(0, NO_FACES)
    assert made == kept.round(0, NO_FACES)
    for face in made:
        one, other = (np.asarray(Image.open(studio.folder / face.file)) for studio in (anew, kept))
        assert np.array_equal(one, other)


def test_a_round_is_told_the_faces_of_all_rounds_before(smoke_workspace):
    told, made = [], []

    class Recording(Studio):
        def round(self, number, counts):
            told.append(counts.copy())
            made.append(super().round(number, counts))
            return made[-1]

    rounds = Recording(wanted(96).cache, seed=0, resolution=256).rounds()
    for _ in range(3):
        next(rounds)
    first, second = map(counts_of, made[:2])
    assert told == [NO_FACES, first, first + second]
    assert 0 < first.total() < told[2].total()


def test_every_age_group_has_both_genders(faces):
    counts = faces.table.groupby(["group", "gender"]).size().unstack()
    assert counts.shape == (4, 2)
    assert counts.min().min() >= 4
    train = faces.select(split="train").table.groupby(["group", "gender"]).size()
    assert len(train) == 8


def test_an_identity_has_several_ages_and_one_gender(faces):
    identities = faces.table.groupby("identity")
    assert (identities["gender"].nunique() == 1).all()
    assert identities.size().mean() > 2
    assert identities.size().max() == 3
    assert (identities["group"].nunique() > 1).mean() > 0.7
    assert faces.table["age"].min() >= YOUNGEST


def test_moves_go_to_the_emptiest_groups_within_reach():
    counts = Counter({("female", group): faces for group, faces in enumerate((9, 9, 1, 2))})
    others = (counts, 8.0, np.random.default_rng(0))
    moves = choose_moves(DemoFace("", "", 33, "female"), 2, *others)
    assert [group for group, _ in moves] == [2, 3]
    for group, move in moves:
        low, high = AIMS[group]
        assert low <= 33 + 8 * move <= high
    assert [group for group, _ in choose_moves(DemoFace("", "", 20, "female"), 3, *others)] == [1], "24 years at most"
    far = [move for age in range(14, 80) for _, move in choose_moves(DemoFace("", "", age, "male"), 3, *others)]
    assert max(map(abs, far)) <= LARGEST_MOVE
    assert all(age_group(low) == age_group(high) == group for group, (low, high) in enumerate(AIMS))


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
    averaged = large.reshape(2, 512, 2, 512, 2, 3).mean(axis=(2, 4))
    difference = np.abs(averaged - small)
    assert difference.mean() < 0.5, "grey levels of 255"
    assert np.quantile(difference, 0.999) < 3, "only where the generator leaves [-1, 1]"
    assert np.array_equal(small[:1], half.faces(half.styles(draws)[:1])), "a face does not depend on its company"
    assert [resolution_for(size) for size in (32, 64, 170, 171, 256, 512)] == [256, 256, 256, 512, 512, 1024]


def test_no_face_has_no_label():
    assert Labeller().label(Image.new("RGB", (256, 256), "grey")) is None


def test_the_data_card_names_the_seeds_that_the_weights_that_ship_were_trained_on(tmp_path: Path):
    card = (PRETRAINED / "README.md").read_text()
    for seed in range(7):
        trained = not any(f"seed {seed}: none" in note for note in _notes(Studio(tmp_path, seed, 64)))
        assert trained == (f"-p seed {seed} -p faces" in card), seed


def test_readme_names_the_seeds_that_the_weights_that_ship_were_trained_on():
    told = re.search(r"Do not use seeds ([\d, and]+) with the demo set", (ROOT / "README.md").read_text())
    assert set(map(int, re.findall(r"\d+", told[1]))) == set(_TRAINED_ON)
