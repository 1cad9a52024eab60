"""Figures: what is drawn where."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

import ageflow
from ageflow.data.faces import Faces
from ageflow.flows.glow import load_glow
from ageflow.report.figures import Gallery, make_figures
from ageflow.report.picture import Picture
from ageflow.report.pictures import choose_faces, contact_sheet, prototype_grid, translation_grid, variant_grid
from ageflow.report.plots import latent_scatter, project_latents, training_curves
from ageflow.translation.latents import Latents
from ageflow.translation.prototypes import Prototypes
from ageflow.workspace import MissingArtefactError, Workspace
from tests.tiny import parameters


class Invert:
    """A method whose every translation is the negative."""

    def translate(self, images, target, source=None, attributes=None):
        return 1 - images.float() / 255


def folder_of(runs_root, name):
    return runs_root / "demo/tiny" / name


@pytest.fixture
def faces(runs_root):
    return Faces.open(folder_of(runs_root, "faces"))


def cells(picture):
    """The axes that show a picture, in rows."""
    grid = [axes for axes in picture.axes if axes.images]
    return np.array(grid, dtype=object)


def boxed(axes):
    return axes.spines["top"].get_visible() and to_hex(axes.spines["top"].get_edgecolor()) == "#d62728"


def test_figure_4_boxes_the_input_in_its_own_column_and_shows_it_unchanged(faces):
    chosen = choose_faces(faces, 5)
    grid = cells(translation_grid(Invert(), faces, chosen)).reshape(5, 4)
    for row, face in enumerate(chosen):
        image = faces.images([face])[0].permute(1, 2, 0).numpy()
        for group in range(4):
            shown = np.asarray(grid[row, group].images[0].get_array())
            if group == faces.groups[face]:
                assert boxed(grid[row, group])
                assert (shown == image).all()
            else:
                assert not boxed(grid[row, group])
                assert (shown == 255 - image).all()


def test_figure_6_has_a_row_a_method_and_a_block_a_face(faces):
    chosen = choose_faces(faces, 2)
    picture = variant_grid({"glow": Invert(), "ageflow": Invert()}, faces, chosen)
    grid = cells(picture).reshape(2, 8)
    assert sum(map(boxed, grid.ravel())) == 4
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["GLOW", "AgeFlow"]
    assert [axes.get_title() for axes in grid[0]] == ["30-", "31-40", "41-50", "51+"] * 2


def test_chosen_faces_show_every_group_and_gender_and_nobody_twice(faces):
    chosen = choose_faces(faces, 8)
    table = faces.table.iloc[chosen]
    assert table["group"].value_counts().tolist() == [2, 2, 2, 2]
    assert table["identity"].is_unique
    assert (choose_faces(faces, 8) == chosen).all()
    assert set(choose_faces(faces, 8, seed=1)) != set(chosen)
    assert len(choose_faces(faces, 10_000)) == len(faces) == len(set(choose_faces(faces, 10_000)))


def test_prototypes_stand_in_their_groups_column_with_their_counts(runs_root):
    prototypes = Prototypes.load(folder_of(runs_root, "prototypes"))
    glow = load_glow(folder_of(runs_root, "glow"), "cpu")
    picture = prototype_grid(prototypes, glow)
    grid = np.array(picture.axes, dtype=object).reshape(3, 4)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["female", "male", "all faces"]
    assert [axes.get_title() for axes in grid[0]] == ["30-", "31-40", "41-50", "51+"]
    brightness = np.array([[np.asarray(axes.images[0].get_array()).mean() for axes in row] for row in grid])
    assert (np.diff(brightness, axis=1) < -20).all()  # the tiny faces darken with age
    assert grid[2, 0].get_xlabel().startswith("24 faces")


def test_a_prototype_that_fell_back_says_so(runs_root):
    prototypes = Prototypes.load(folder_of(runs_root, "prototypes"))
    prototypes.cells.loc[0, "average_of"] = "group"
    picture = prototype_grid(prototypes, load_glow(folder_of(runs_root, "glow"), "cpu"))
    assert "average of its group" in picture.axes[0].get_xlabel()


def test_discriminants_separate_held_out_faces_by_group_and_gender(runs_root, faces):
    plane = project_latents(Latents.open(folder_of(runs_root, "latents"), faces), "gender")
    held_out = (plane.table["split"] == "test").to_numpy()
    age, gender = plane.supervised[held_out].T
    groups = plane.table.loc[held_out, "group"].to_numpy()
    assert np.corrcoef(age, groups)[0, 1] > 0.9  # the old on the right
    men = (plane.table.loc[held_out, "gender"] == "male").to_numpy()
    assert max(gender[men].min() - gender[~men].max(), gender[~men].min() - gender[men].max()) > 0
    assert plane.attribute == "gender"
    assert len(latent_scatter(plane, ["gender"]).axes) == 4


def test_latents_of_faces_without_attributes_are_coloured_by_group_only(runs_root, faces):
    latents = Latents.open(folder_of(runs_root, "latents"), faces)
    plane = project_latents(latents, None)
    assert plane.attribute is None
    assert len(latent_scatter(plane, []).axes) == 2


def test_training_curves_draw_every_number_that_was_written(tmp_path):
    lines = [{"iteration": i, "T/loss": 1 / i, "seconds": i} for i in range(1, 6)] + [{"iteration": 5, "test/x": 2.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    panels = {axes.get_title(): axes for axes in training_curves(tmp_path).axes if axes.lines}
    assert set(panels) == {"T/loss", "test/x"}
    assert panels["T/loss"].lines[0].get_ydata() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert panels["test/x"].lines[0].get_xdata().tolist() == [5]


def test_training_curves_of_a_training_that_has_not_begun_say_so(tmp_path):
    assert training_curves(tmp_path).axes[0].texts[0].get_text() == "no metrics yet"


def test_a_picture_shows_itself_at_two_pixels_a_point_and_saves_both_forms(tmp_path):
    picture = contact_sheet(torch.rand(5, 3, 16, 16), columns=4, captions=list("abcde"))
    png, size = picture._repr_png_()
    (tmp_path / "shown.png").write_bytes(png)
    assert Image.open(tmp_path / "shown.png").width == pytest.approx(2 * size["width"], abs=2)
    assert [path.suffix for path in picture.save(tmp_path / "sheet")] == [".png", ".pdf"]
    assert (tmp_path / "sheet.pdf").read_bytes().startswith(b"%PDF")


def test_all_figures_of_a_run_are_written_and_the_marker_last(runs_root):
    settings = ageflow.settings("figures", parameters(runs_root))
    made = make_figures(settings)
    assert {"figure_1", "figure_4", "figure_6", "figure_a2", "training_glow", "training_age"} <= set(made)
    assert all(isinstance(picture, Picture) for picture in made.values())
    folder = Workspace.of(settings).require("figures")
    for name in made:
        assert Image.open(folder / f"{name}.png").width > 300
        assert (folder / f"{name}.pdf").stat().st_size > 1000
    assert json.loads((folder / "done.json").read_text())["missing"] == []
    newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "done.json"
    assert len(cells(made["figure_a2"])) == settings.samples


def test_figures_show_test_faces_only(runs_root):
    gallery = Gallery(ageflow.settings("figures", parameters(runs_root)))
    assert set(gallery.shown.table["split"]) == {"test"}


def test_without_faces_the_error_names_the_notebook(tmp_path):
    with pytest.raises(MissingArtefactError, match="01_prepare_data"):
        make_figures(ageflow.settings("figures", parameters(tmp_path)))


def test_a_face_of_unknown_age_is_drawn_without_a_label(faces):
    faces.table["age"] = pd.Series([float("nan")] * len(faces))
    picture = translation_grid(Invert(), faces, np.array([0]))
    assert cells(picture)[0].get_ylabel() == ""
