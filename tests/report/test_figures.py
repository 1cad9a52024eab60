"""Figures: what is drawn where."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.legend import Legend
from matplotlib.text import Text
from PIL import Image

import ageflow
from ageflow.checkpoint import fingerprint
from ageflow.data.faces import Faces
from ageflow.evaluation.judged import file_name, write_judged
from ageflow.flows.glow import load_glow, to_uint8
from ageflow.report.ages import AGES_FILE
from ageflow.report.figures import Gallery, make_figures, write_figures
from ageflow.report.picture import Picture
from ageflow.report.pictures import (
    _age,
    choose_faces,
    contact_sheet,
    prototype_grid,
    temperature_grid,
    translation_grid,
    variant_grid,
)
from ageflow.report.plots import latent_scatter, project_latents, training_curves
from ageflow.report.strengths import STRENGTH_FILE
from ageflow.run import MissingArtefactError, Workspace
from ageflow.translation.latents import Latents
from ageflow.translation.methods import METHODS
from ageflow.translation.prototypes import Prototypes
from tests.report.evaluations import write_strengths
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
    grid = cells(picture).reshape(4, 4)
    inputs = [[boxed(axes) for axes in row].index(True) for row in grid]
    assert inputs == faces.groups[chosen].repeat(2).tolist()
    assert sum(map(boxed, grid.ravel())) == 4
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["GLOW", "AgeFlow"] * 2
    assert [axes.get_title() for axes in grid[0]] == ["30-", "31-40", "41-50", "51+"]


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
    assert "average of its group" in " ".join(picture.axes[0].get_xlabel().split())


def test_captions_of_prototypes_of_two_attributes_stay_in_their_cells(runs_root):
    prototypes = Prototypes.load(folder_of(runs_root, "prototypes"))
    prototypes.cells.loc[:, "average_of"] = "group × gender"
    prototypes.cells.loc[0, "count"] = 1
    picture = prototype_grid(prototypes, load_glow(folder_of(runs_root, "glow"), "cpu"))
    picture.savefig(io.BytesIO())  # laid out
    boxes = [axes.xaxis.label.get_window_extent() for axes in picture.axes]
    boxes += [axes.get_window_extent() for axes in picture.axes]
    for place, box in enumerate(boxes):
        assert picture.bbox.x0 <= box.x0
        assert box.x1 <= picture.bbox.x1
        assert box.y0 >= picture.bbox.y0 - 3  # pixels of 320 an inch, below the last line's letters
        assert not any(box.overlaps(other) for other in boxes[:place])
    assert picture.axes[0].get_xlabel().startswith("1 face:")


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


@pytest.fixture(scope="module")
def drawn(runs_root, tmp_path_factory):
    """Every figure of the tiny run, drawn once: the figures, their folder and the settings."""
    root = tmp_path_factory.mktemp("drawn")
    (root / "demo/tiny/evaluation").mkdir(parents=True)
    for made in ("faces", "glow", "latents", "prototypes", "ictm", "no_ictm", "classifiers"):
        folder_of(root, made).symlink_to(folder_of(runs_root, made))  # the tiny run is shared, and stays as it is
    ages = [(name, who, age, age + 5) for name in METHODS for who in "ab" for age in (30.0, 50.0)]
    table = pd.DataFrame(ages, columns=["method", "identity", "target_age", "predicted_age"])
    table.to_parquet(folder_of(root, "evaluation") / AGES_FILE)
    settings = ageflow.settings("figures", parameters(root, external="demo/tiny", temperatures=[0.5, 1.0]))
    reached = {name.replace("+", "_"): [(0.2, 0.9), (0.6, 0.7)] for name in METHODS}
    write_strengths(settings, **reached)
    return make_figures(settings), Workspace.of(settings).require("figures"), settings


def test_all_figures_of_a_run_are_written_and_the_marker_last(drawn):
    made, folder, settings = drawn
    wanted = {
        "figure_1",
        "figure_4",
        "figure_6",
        "figure_ages",
        "figure_strength",
        "figure_a1",
        "figure_a2",
        "training_glow",
        "training_age",
    }
    assert wanted <= set(made)
    for name in made:
        assert Image.open(folder / f"{name}.png").width > 300
        assert (folder / f"{name}.pdf").stat().st_size > 1000
    done = json.loads((folder / "done.json").read_text())
    assert done["figures"] == list(made)
    assert done["missing"] == []
    assert done["left_out"] == {}
    assert "people the model was not trained on" in done["external"]["faces"]
    newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "done.json"
    assert len(cells(made["figure_a1"])) == 5 * settings.rows
    assert len(cells(made["figure_a2"])) == 2 * settings.samples


def test_figures_fit_a_column_and_their_text_is_readable_there(drawn):
    for name, picture in drawn[0].items():
        assert picture.get_size_inches()[0] <= 3.3, name
        texts = [text for text in picture.findobj(Text) if text.get_visible() and text.get_text()]
        assert min(text.get_fontsize() for text in texts) >= 7, name


def test_no_label_is_cut_off_at_the_edge(drawn):
    for name, picture in drawn[0].items():
        picture.draw_without_rendering()  # in its own pixels; the last to draw was the PDF, in points
        labels = [text for axes in picture.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
        labels += [text for legend in picture.findobj(Legend) for text in legend.get_texts()]
        for label in filter(Text.get_text, labels + picture.texts):
            box = label.get_window_extent()
            assert box.x0 >= -1, (name, label)
            assert box.x1 <= picture.bbox.x1 + 1, (name, label)


def test_pdfs_hold_text_in_embedded_truetype_and_lines_as_lines(drawn):
    made, folder, _ = drawn
    for name in made:
        content = (folder / f"{name}.pdf").read_bytes()
        assert b"/FontFile2" in content, name
        assert b"/Type3" not in content, name
    for name in ("figure_ages", "figure_strength", "training_glow"):
        assert b"/Subtype /Image" not in (folder / f"{name}.pdf").read_bytes()


def test_figure_a2_warms_the_same_noise_from_row_to_row(runs_root):
    glow = load_glow(folder_of(runs_root, "glow"), "cpu")
    picture = temperature_grid(glow, [0.25, 0.5], count=3, seed=4)
    grid = cells(picture).reshape(2, 3)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["0.25", "0.5"]
    noise = torch.randn(3, glow.dimensions, generator=torch.Generator().manual_seed(4))
    for row, temperature in zip(grid, (0.25, 0.5), strict=True):
        expected = to_uint8(glow.decode(noise * temperature)).permute(0, 2, 3, 1).numpy()
        for axes, face in zip(row, expected, strict=True):
            assert (np.asarray(axes.images[0].get_array()) == face).all()


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


def test_what_was_judged_of_an_earlier_network_is_not_drawn_beside_the_new_one_s_faces(drawn):
    _, folder, settings = drawn
    judged = folder.parent / "evaluation" / file_name("ageflow")
    rows = pd.DataFrame({"method": ["ageflow"]})
    write_judged(judged, rows, {"fingerprints": {"ictm": fingerprint(folder.parent / "ictm")}})
    assert isinstance(Gallery(settings).figure_ages(), Picture)
    write_judged(judged, rows, {"fingerprints": {"ictm": "another"}})
    gallery = Gallery(settings)
    for left_out in (gallery.figure_ages(), gallery.figure_strength()):
        assert "since 06_ablations.ipynb judged it, ictm has been trained again" in left_out.why
    judged.unlink()


def test_a_figure_that_cannot_be_drawn_says_what_would_draw_it_and_leaves_no_old_file(drawn):
    _, folder, settings = drawn
    for file in (AGES_FILE, STRENGTH_FILE):
        (folder.parent / "evaluation" / file).unlink()
    gallery = Gallery(settings.model_copy(update={"external": None}))
    left_out = {"figure_a1": gallery.figure_a1(), "figure_ages": gallery.figure_ages()}
    left_out["figure_strength"] = gallery.figure_strength()
    assert "-p external" in left_out["figure_a1"].why
    assert "06_ablations" in left_out["figure_ages"].why
    assert "strength.parquet: 06_ablations" in left_out["figure_strength"].why
    assert "Left out" in left_out["figure_ages"]._repr_markdown_()
    (folder / "figure_ages.png").touch()
    write_figures(folder, left_out)
    assert not list(folder.glob("figure_ages.*"))
    assert not list(folder.glob("figure_strength.*"))
    assert not list(folder.glob("figure_a1.*"))


def test_without_an_attribute_figure_1_has_the_first_two_discriminants_of_age():
    """Four groups on a square have two that tell them apart, and a third that does not."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 200)
    values = random.normal(size=(800, 64))
    values[:, 0] += 6 * (groups >= 2)
    values[:, 1] += 4 * (groups % 2)
    table = pd.DataFrame({"group": groups, "split": "train"})
    latents = SimpleNamespace(table=table, dimensions=64, batch=lambda rows: torch.from_numpy(values[rows]))
    plane = project_latents(latents, attribute=None)
    for axis in (0, 1):
        score = plane.supervised[:, axis]
        between = np.var([score[groups == group].mean() for group in range(4)])
        assert between / score.var() > 0.7, axis


def test_a_face_of_30_9_years_is_shown_as_30_which_its_group_says():
    faces = SimpleNamespace(table=pd.DataFrame({"age": [30.9, 31.0, float("nan")]}))
    assert [_age(faces, face) for face in range(3)] == ["age 30", "age 31", ""]
