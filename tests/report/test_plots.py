"""Plots: what is drawn, that everybody can tell the colours apart, and what is averaged over whom."""

import json
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from ageflow.data.records import PAPER_GROUPS
from ageflow.evaluation.scores import strength_curves
from ageflow.report.drawing import GROUP_COLOURS, HUES, method_look
from ageflow.report.plots import age_curves, latent_scatter, project_latents, trade_off_plot, training_curves
from ageflow.translation.methods import METHODS
from ageflow.translation.prototypes import Latents
from tests.report.evaluations import judged_rows

LOOK = method_look()
TARGETS = (20.0, 40.0, 60.0)
STRENGTHS = (0.5, 1.0, 1.5)
# What somebody sees who lacks a kind of cone: matrices on linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
SEEN = {
    "all cones": np.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def seen(colour, cones):
    """The colour in CIELAB as it is seen with these cones."""
    coded = np.array(to_rgb(colour))
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(SEEN[cones]) @ linear, 0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("cones", SEEN)
@pytest.mark.parametrize(
    "colours", [GROUP_COLOURS, HUES[:4], tuple(LOOK["palette"].values())], ids=["age groups", "attributes", "methods"]
)
def test_colours_differ_for_the_colour_blind(colours, cones):
    nearest = min(deltaE_ciede2000(seen(a, cones), seen(b, cones)) for a, b in combinations(colours, 2))
    assert nearest > 10  # some 2 are just told apart side by side


def test_methods_differ_without_any_colour_and_age_groups_darken_with_age():
    assert len(set(LOOK["dashes"].values())) == len(set(LOOK["markers"].values())) == len(LOOK["markers"])
    assert (np.diff([seen(colour, "all cones")[0] for colour in GROUP_COLOURS]) < -10).all()


def test_discriminants_separate_held_out_faces_by_group_and_gender(runs_root, faces):
    plane = project_latents(Latents.open(runs_root / "demo/tiny/latents", faces), "gender")
    held_out = (plane.table["split"] == "test").to_numpy()
    age, gender = plane.supervised[held_out].T
    groups = plane.table.loc[held_out, "group"].to_numpy()
    assert np.corrcoef(age, groups)[0, 1] > 0.9  # the old on the right
    men = (plane.table.loc[held_out, "gender"] == "male").to_numpy()
    assert max(gender[men].min() - gender[~men].max(), gender[~men].min() - gender[men].max()) > 0
    assert plane.attribute == "gender"
    figure = latent_scatter(plane, ["gender"])
    assert len(figure.axes) == 4
    drawn = np.concatenate([points.get_offsets() for points in figure.axes[1].collections if len(points.get_offsets())])
    assert sorted(drawn[:, 0]) == pytest.approx(sorted(plane.supervised[:, 0]))


def test_without_an_attribute_figure_1_has_the_first_two_discriminants_of_age():
    """Four groups on a square have two that tell them apart, and a third that does not."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 200)
    values = random.normal(size=(800, 64))
    values[:, 0] += 6 * (groups >= 2)
    values[:, 1] += 4 * (groups % 2)
    table = pd.DataFrame({"group": groups, "split": "train"})
    latents = SimpleNamespace(table=table, dimensions=64, age_groups=PAPER_GROUPS)
    latents.batch = lambda rows: torch.from_numpy(values[rows])
    plane = project_latents(latents, attribute=None)
    for axis in (0, 1):
        score = plane.supervised[:, axis]
        between = np.var([score[groups == group].mean() for group in range(4)])
        assert between / score.var() > 0.7, axis


def test_training_curves_draw_every_number_that_was_written(tmp_path):
    lines = [{"iteration": i, "T/loss": 1 / i, "seconds": i} for i in range(1, 6)] + [{"iteration": 5, "test/x": 2.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    panels = {axes.get_title(): axes for axes in training_curves(tmp_path).axes if axes.lines}
    assert set(panels) == {"T/loss", "test/x"}
    assert panels["T/loss"].lines[0].get_ydata() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert panels["test/x"].lines[0].get_xdata().tolist() == [5]


@pytest.fixture
def ages():
    """Faces of ten people, the first of whom has nine: every method misses by its place, and each person by theirs."""
    rows = []
    for place, method in enumerate(reversed(METHODS)):
        for face in range(18):
            who = max(0, face - 8)
            rows += [(method, f"f{face}", f"p{who}", target, target + place + who) for target in TARGETS]
    return pd.DataFrame(rows, columns=["method", "face", "identity", "target_age", "predicted_age"])


def lines_by_method(axes):
    """The drawn line of each method."""
    colours = {colour: name for name, colour in LOOK["palette"].items()}
    return {
        colours[to_hex(line.get_color())]: line
        for line in axes.lines
        if len(line.get_xdata()) and to_hex(line.get_color()) in colours
    }


def test_age_curves_are_means_over_faces_with_intervals_over_people(ages):
    curves = age_curves(ages)
    assert list(dict.fromkeys(curves["method"])) == list(METHODS.values())
    assert curves.groupby("method")["target_age"].apply(list).tolist() == [list(TARGETS)] * len(METHODS)
    assert (curves["faces"] == 18).all()
    assert (curves["identities"] == 10).all()
    miss = (
        np.repeat([*reversed(range(len(METHODS)))], 3) + 45 / 18
    )  # nine faces of person 0, one of each of the persons 1 to 9
    assert curves["value"].to_numpy() == pytest.approx(curves["target_age"].to_numpy() + miss)
    # Were faces drawn instead of people, the first person's nine would make the interval narrower than a mean of
    # eighteen faces with this spread has: 1.96 · 3.1/√18.
    assert ((curves["high"] - curves["low"]) > 2 * 1.96 * 3.1 / 18**0.5).all()
    assert curves["value"].between(curves["low"], curves["high"]).all()


@pytest.fixture
def strengths():
    """Each method reaches a share of the ages that rises with the strength; the second judge sees one group in all."""
    parts = []
    for place, method in enumerate(METHODS):
        for strength in STRENGTHS:
            part = judged_rows((0.1 * place + 0.2 * strength,) * 4, (1,) * 4).assign(method=method, strength=strength)
            parts.append(part.assign(cosine_centred=1 - 0.2 * strength, second=0, verified=True))
    return pd.concat(parts, ignore_index=True)


def test_the_trade_off_s_curves_are_means_of_the_groups_means(strengths):
    uneven = pd.concat([strengths, strengths[strengths["target"] == 3].assign(cosine_centred=0.0)], ignore_index=True)
    curves = strength_curves(uneven).set_index(["method", "strength"])
    assert curves.index.tolist() == [(method, strength) for method in METHODS for strength in STRENGTHS]
    assert curves.loc[("glow", 0.5), "age_accuracy"] == pytest.approx(10)
    assert curves.loc[("ageflow", 1.0), "age_accuracy"] == pytest.approx(70)
    assert curves.loc[("ageflow", 1.0), "second_accuracy"] == pytest.approx(25), "every face is seen in 30-"
    # 51+ has twice as many rows, half of them at 0: it counts as a quarter all the same
    assert curves.loc[("ageflow", 1.0), "cosine_centred"] == pytest.approx((3 * 0.8 + 0.4) / 4)


def test_every_method_has_its_line_by_both_judges_and_a_large_point_as_it_is(strengths):
    curves = strength_curves(strengths)
    figure = trade_off_plot(curves)
    judges = {"age_accuracy": "the run's classifier", "second_accuracy": "the second judge"}
    for axes, (column, judge) in zip(figure.axes, judges.items(), strict=True):
        assert axes.get_xlabel() == f"age accuracy by {judge}, %"
        lines = lines_by_method(axes)
        for method, own in curves.groupby("method", sort=False):
            line = lines[METHODS[method]]
            assert line.get_xdata() == pytest.approx(own[column].to_numpy())
            assert line.get_ydata() == pytest.approx(own["cosine_centred"].to_numpy())
            assert line.get_marker() == LOOK["markers"][METHODS[method]]
        large = np.concatenate([points.get_offsets() for points in axes.collections])
        as_it_is = curves[curves["strength"] == 1].sort_values("method", key=lambda names: names.map(METHODS))
        assert np.array(large) == pytest.approx(as_it_is[[column, "cosine_centred"]].to_numpy())
