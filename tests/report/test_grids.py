"""Figures made of faces: what is drawn where."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

import ageflow
from ageflow.data.records import PAPER_GROUPS
from ageflow.flows.glow import to_uint8
from ageflow.report.grids import (
    choose_faces,
    foreign_grid,
    prototype_grid,
    temperature_grid,
    translation_grid,
    variant_grid,
)
from ageflow.translation.prototypes import Prototypes
from tests.tiny import SIDE

GROUPS = ["30-", "31-40", "41-50", "51+"]


class Invert(ageflow.Method):
    """A method whose every translation is the negative."""

    def translate(self, images, target, source=None, attributes=None):
        return 1 - images.float() / 255


class Target:
    """A method whose faces are as bright as the group they are made for; it takes no more than that."""

    age_groups = PAPER_GROUPS

    def translate(self, images, target):
        return torch.ones(len(images), 3, SIDE, SIDE) * target[:, None, None, None] / 10


def cells(figure, *shape):
    """The axes that show a face, in rows."""
    return np.array([axes for axes in figure.axes if axes.images], dtype=object).reshape(shape)


def pixels(axes):
    return np.asarray(axes.images[0].get_array())


def framed(axes):
    return axes.spines["top"].get_visible() and to_hex(axes.spines["top"].get_edgecolor()) == "#d62728"


def test_figure_4_frames_the_input_in_its_own_column_and_shows_it_unchanged(faces):
    chosen = choose_faces(faces, 5)
    grid = cells(translation_grid(Invert(), faces, chosen), 5, 4)
    for row, face in enumerate(chosen):
        image = faces.images([face])[0].permute(1, 2, 0).numpy()
        for group in range(4):
            own = group == faces.groups[face]
            assert framed(grid[row, group]) == own
            assert (pixels(grid[row, group]) == (image if own else 255 - image)).all()


def test_figure_6_has_a_row_a_method_and_a_block_a_face(faces):
    chosen = choose_faces(faces, 2)
    grid = cells(variant_grid({"glow": Invert(), "ageflow": Invert()}, faces, chosen), 4, 4)
    inputs = [[framed(axes) for axes in row].index(True) for row in grid]
    assert inputs == faces.groups[chosen].repeat(2).tolist()
    assert sum(map(framed, grid.ravel())) == 4
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["GLOW", "AgeFlow"] * 2
    assert [axes.get_title() for axes in grid[0]] == GROUPS


def test_figure_a1_frames_the_input_and_asks_for_every_group_without_a_source(faces):
    images = faces.images([0, 5])
    grid = cells(foreign_grid(Target(), images, ["age 25", ""]), 2, 5)
    assert [axes.get_title() for axes in grid[0]] == ["input", *GROUPS]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["age 25", ""]
    for row, image in zip(grid, images, strict=True):
        assert (pixels(row[0]) == image.permute(1, 2, 0).numpy()).all()
        assert [framed(axes) for axes in row] == [True, False, False, False, False]
        assert [int(pixels(axes).max()) for axes in row[1:]] == [0, 26, 51, 76]


def test_figure_a2_warms_the_same_noise_from_row_to_row(glow):
    grid = cells(temperature_grid(glow, [0.25, 0.5], count=3, seed=4), 2, 3)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["0.25", "0.5"]
    noise = torch.randn(3, glow.dimensions, generator=torch.Generator().manual_seed(4))
    for row, temperature in zip(grid, (0.25, 0.5), strict=True):
        expected = to_uint8(glow.decode(noise * temperature)).permute(0, 2, 3, 1).numpy()
        assert all((pixels(axes) == face).all() for axes, face in zip(row, expected, strict=True))


def test_chosen_faces_show_every_group_and_gender_and_nobody_twice(faces):
    chosen = choose_faces(faces, 8)
    table = faces.table.iloc[chosen]
    assert table["group"].value_counts().tolist() == [2, 2, 2, 2]
    assert table["identity"].is_unique
    assert (choose_faces(faces, 8) == chosen).all()
    assert set(choose_faces(faces, 8, seed=1)) != set(chosen)
    assert len(choose_faces(faces, 10_000)) == len(faces) == len(set(choose_faces(faces, 10_000)))


@pytest.fixture
def prototypes(runs_root):
    return Prototypes.load(runs_root / "demo/tiny/prototypes")


def test_prototypes_stand_in_their_groups_column_with_their_counts(prototypes, glow):
    grid = cells(prototype_grid(prototypes, glow), 3, 4)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["female", "male", "all faces"]
    assert [axes.get_title() for axes in grid[0]] == GROUPS
    brightness = np.array([[pixels(axes).mean() for axes in row] for row in grid])
    assert (np.diff(brightness, axis=1) < -20).all()  # the tiny faces darken with age
    assert grid[2, 0].get_xlabel() == "24 faces"
