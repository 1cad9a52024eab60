"""The figures of a run: all drawn and written, readable in print, and left out with a reason."""

import re

import pytest
from matplotlib.legend import Legend
from matplotlib.text import Text
from PIL import Image

import ageflow
from ageflow.report.drawing import message
from ageflow.report.figures import FIGURES, RunFigures, make_figures, write_figures
from ageflow.run import MANIFEST, Manifest, MissingArtefactError, Workspace
from ageflow.translation.methods import METHODS
from tests.report.evaluations import change_judged, default_methods, write_evaluation
from tests.report.test_grids import cells
from tests.tiny import parameters


@pytest.fixture(scope="module")
def drawn(runs_root, tmp_path_factory):
    """Every figure of the tiny run, drawn once: the figures, their folder and the settings."""
    root = tmp_path_factory.mktemp("drawn")
    glow, ageflow_rows = default_methods().values()
    methods = dict.fromkeys(METHODS, glow) | {"ageflow": ageflow_rows}
    write_evaluation(root, run="tiny", methods=methods, fingerprints={"faces": "f"})
    for made in ("faces", "glow", "latents", "prototypes", "decoded_age", "ictm", "no_ictm", "classifiers"):
        # The tiny run is shared, and stays as it is.
        (root / "demo/tiny" / made).symlink_to(runs_root / "demo/tiny" / made)
    given = parameters(root, external="demo/tiny", temperatures=[0.5, 1.0], rows=2, samples=2)
    settings = ageflow.settings("figures", given)
    return make_figures(settings), Workspace.of(settings).require("figures"), settings


def test_all_figures_of_a_run_are_written_and_the_manifest_last(drawn):
    made, folder, settings = drawn
    made = {name: figure for name, figure in made.items() if name != "figure_5"}
    assert {*FIGURES, "training_glow", "training_age"} - {"figure_5"} <= set(made)
    for name in made:
        assert Image.open(folder / f"{name}.png").width > 300
        assert (folder / f"{name}.pdf").stat().st_size > 1000
    details = Manifest.read(folder).details
    assert details["figures"] == list(made)
    assert details["missing"] == []
    assert list(details["left_out"]) == ["figure_5"]
    assert "only the ablation's methods were judged" in details["left_out"]["figure_5"]
    assert "people the model was not trained on" in details["external"]["faces"]
    assert max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns).name == MANIFEST
    assert len(cells(made["figure_a1"], -1)) == 5 * settings.rows
    assert len(cells(made["figure_a2"], -1)) == 2 * settings.samples


def test_figures_fit_a_column_and_their_text_is_readable_there_and_not_cut_off(drawn):
    for name, figure in drawn[0].items():
        if name == "figure_5":  # left out
            continue
        assert figure.get_size_inches()[0] <= 3.3 or name == "figure_sheet", name
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
        assert min(text.get_fontsize() for text in texts) >= 7, name
        figure.draw_without_rendering()  # in its own pixels; the last to draw was the PDF, in points
        labels = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
        labels += [text for legend in figure.findobj(Legend) for text in legend.get_texts()]
        for label in filter(Text.get_text, labels + figure.texts):
            box = label.get_window_extent()
            assert box.x0 >= -1, (name, label)
            assert box.x1 <= figure.bbox.x1 + 1, (name, label)


def test_pdfs_hold_text_in_embedded_truetype_and_lines_as_lines(drawn):
    made, folder, _ = drawn
    for name in made.keys() - {"figure_5"}:  # which is left out
        content = (folder / f"{name}.pdf").read_bytes()
        assert b"/FontFile2" in content, name
        assert b"/Type3" not in content, name
    for name in ("figure_ages", "figure_trade_off", "training_glow"):
        assert b"/Subtype /Image" not in (folder / f"{name}.pdf").read_bytes()


def test_a_figure_is_drawn_again_only_where_it_has_changed():
    figure = message("before")
    shown = figure._repr_png_()[0]
    assert figure._repr_png_()[0] is shown
    figure.texts[0].set_text("after")
    assert figure._repr_png_()[0] != shown


def test_figures_show_test_faces_only(runs_root):
    assert set(RunFigures(ageflow.settings("figures", parameters(runs_root))).shown.table["split"]) == {"test"}


def test_without_faces_the_error_names_the_notebook(tmp_path):
    with pytest.raises(MissingArtefactError, match="01_prepare_data"):
        make_figures(ageflow.settings("figures", parameters(tmp_path)))


def test_what_was_judged_of_an_earlier_network_is_not_drawn_beside_the_new_one_s_faces(drawn):
    settings = drawn[2]
    change_judged(settings, "ageflow", fingerprints={"faces": "f", "ictm": "another"})
    for name in ("cycle", "continuous", "strength"):
        change_judged(settings, name, fingerprints={})
    run = RunFigures(settings)
    for left_out in (run.figure_ages(), run.figure_trade_off()):
        assert re.search("trained again since 06_ablations.ipynb judged it: .*ictm", left_out)


def test_a_figure_that_cannot_be_drawn_says_what_would_draw_it_and_leaves_no_old_file(drawn):
    _, folder, settings = drawn
    (folder.parent / "evaluation" / MANIFEST).unlink()
    run = RunFigures(settings.model_copy(update={"external": None}))
    left_out = {name: getattr(run, name)() for name in ("figure_a1", "figure_ages", "figure_trade_off")}
    assert "-p external" in left_out["figure_a1"]
    for name in ("figure_ages", "figure_trade_off"):
        assert left_out[name] == "the run has no evaluation: run 06_ablations.ipynb"
    write_figures(folder, left_out)
    assert not [file for name in left_out for file in folder.glob(f"{name}.*")]
