"""Averages over exactly the faces that they are said to be of, their fallbacks, and the directions between them."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from ageflow.checkpoint import CheckpointError
from ageflow.config import ParameterError
from ageflow.data.faces import Faces
from ageflow.data.records import PAPER_GROUPS
from ageflow.run import Workspace
from ageflow.training.ictm import train_translator
from ageflow.translation.ages import as_weights
from ageflow.translation.prototypes import Latents, Prototypes, average_latents, compute_prototypes, direction_lengths
from tests.tiny import copy_of, settings_of

DIMENSIONS = 6


def latents(count=400, seed=0) -> Latents:
    """Random latents of random faces, a fifth of whose attributes are not known; their group is in the first number."""
    rng = np.random.default_rng(seed)
    draw = lambda *values: rng.choice(np.array([*values, None], dtype=object), count)  # noqa: E731
    table = pd.DataFrame({"group": rng.integers(4, size=count), "split": rng.choice(["train", "test"], count)})
    table = table.assign(gender=draw("female", "male"), race=draw("a", "b", "c"))
    array = rng.normal(size=(count, DIMENSIONS)).astype(np.float32)
    array[:, 0] += table["group"]
    return Latents(table, [array[:300], array[300:]], "glow", "faces")


@pytest.mark.parametrize("attributes", [[], ["gender"], ["gender", "race"]])
@pytest.mark.parametrize("min_cell", [1, 9, 10_000])
@pytest.mark.filterwarnings("ignore:fewer than min_cell")
def test_every_average_is_of_the_faces_that_its_row_names(attributes, min_cell):
    """Against the definition: a small cell takes the average over its last attribute's values, then over the others'."""
    of = latents()
    prototypes = average_latents(of, attributes, min_cell)
    values = [["female", "male"], ["a", "b", "c"]][: len(attributes)]
    assert prototypes.attributes == tuple(attributes)
    assert prototypes.combinations == (list(itertools.product(*values)) if attributes else [])
    named = list(itertools.product(range(4), [*prototypes.combinations, ()]))
    for cell, mean, (group, combination) in zip(
        prototypes.cells.to_dict("records"), prototypes.means.flatten(0, 1), named, strict=True
    ):
        inside = [of.table[(of.table["split"] == "train") & (of.table["group"] == group)]]
        for name, value in zip(attributes, combination, strict=False):
            inside.append(inside[-1][inside[-1][name] == value])
        enough = [kept for kept, some in enumerate(inside) if len(some) >= min_cell or kept == 0]
        kept = enough[-1]
        torch.testing.assert_close(mean, of.batch(inside[kept].index.to_numpy()).double().mean(0).float())
        assert (cell["group"], cell["count"]) == (PAPER_GROUPS.labels[group], len(inside[-1]))
        fallback = " × ".join(["group", *attributes[:kept]])
        assert cell["average_of"] == ("cell" if kept == len(combination) else fallback)


def test_averages_that_fall_back_in_some_groups_only_are_named():
    """A direction from one of them to another holds a change of gender beside that of age."""
    of = latents()
    counts = of.table[of.table["split"] == "train"].groupby(["gender", "group"]).size()
    limit = int(counts["female"].sort_values().iloc[1])  # one group of the women is smaller
    with pytest.warns(UserWarning, match=rf"^fewer than min_cell = {limit} training faces in some groups of .*female"):
        average_latents(of, ["gender"], limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for everywhere in (1, 10_000):
            average_latents(of, ["gender"], everywhere)


def test_what_cannot_be_averaged_is_named():
    of = latents()
    with pytest.raises(ParameterError, match=r"attributes = \['gender', 'height'\]: the faces have no height"):
        average_latents(of, ["gender", "height"], 1)
    nobody = Latents(of.table.assign(group=of.table["group"].replace(2, 3)), of.shards, "glow", "faces")
    with pytest.raises(ParameterError, match=r"training face is in the age groups 41-50: .* with other groups"):
        average_latents(nobody, [], 1)


def test_the_direction_s_length_stands_beside_what_chance_alone_gives():
    with pytest.warns(UserWarning, match="fewer than min_cell"):
        prototypes = average_latents(latents(), ["gender"], 18)
    lengths = direction_lengths(prototypes).set_index(["direction", "gender"])
    cells = prototypes.cells.assign(mean=list(prototypes.means.flatten(0, 1))).set_index(["gender", "group"])
    assert 0 < len(lengths) < 9
    for gender, pair in itertools.product(("female", "male", "any"), itertools.pairwise(PAPER_GROUPS.labels)):
        both, named = cells.loc[gender].loc[[*pair]], (" → ".join(pair), gender)
        assert (named in lengths.index) == both["average_of"].eq("cell").all()
        if named in lengths.index:
            expected = [float((both["mean"].iloc[1] - both["mean"].iloc[0]).norm())]
            expected.append((prototypes.spread / both["count"]).sum() ** 0.5)
            assert lengths.loc[named].tolist() == pytest.approx([*expected, expected[0] / expected[1]])


def test_smoothed_directions_are_nearer_the_true_ones_and_with_many_faces_those_of_the_averages():
    """Faces that age along a bent line: few, of which chance hides the bend, and so many that it shows."""
    bends = zip(PAPER_GROUPS.centres, (0, 1, 0, 1), strict=True)
    true = torch.tensor([[0.1 * age, 0.5, bend, 0, 0, 0] for age, bend in bends])
    apart = {60: [], 40_000: []}
    for count, seed in [*itertools.product([60], range(20)), (40_000, 0)]:
        rng = np.random.default_rng(seed)
        table = pd.DataFrame({"group": rng.integers(4, size=count), "split": "train"})
        faces = true[torch.tensor(table["group"].to_numpy())].numpy() + rng.normal(0, 3, (count, DIMENSIONS))
        found = average_latents(Latents(table, [faces.astype(np.float32)], "glow", "faces"), [], 1)
        assert found.spread == pytest.approx(9 * DIMENSIONS, rel=0.3)
        apart[count].append([float((some - true).diff(dim=0).norm()) for some in (found.means[:, 0], found.smoothed)])
    few, many = (np.mean(each, axis=0) for each in apart.values())
    assert few[1] < 0.7 * few[0]
    assert many[1] < min(1.1 * many[0], 0.2), "the bend is not smoothed away"


def test_a_run_s_averages_come_back_as_they_were_and_gender_is_taken_where_faces_have_it(encoded, tmp_path):
    runs_root = copy_of(encoded, tmp_path)
    workspace = Workspace(runs_root, "demo", "tiny")
    of = Latents.open(workspace.path("latents"), Faces.open(workspace.path("faces")))
    settings = settings_of("prototypes", runs_root, min_cell=1).model_copy(update={"attributes": None})
    made, loaded = compute_prototypes(settings, of), Prototypes.load(workspace.path("prototypes"))
    assert torch.equal(loaded.means, made.means)
    pd.testing.assert_frame_equal(loaded.cells, made.cells)
    assert (loaded.attributes, loaded.combinations) == (("gender",), [("female",), ("male",)])
    nobody_s = Latents(of.table.assign(gender=None), of.shards, of.glow, of.faces)
    assert compute_prototypes(settings, nobody_s).attributes == ()

    file = workspace.path("prototypes", "prototypes.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"prototypes\.safetensors cannot be read .*run 03_prototypes"):
        train_translator(settings_of("train_ictm", runs_root))


def prototypes() -> Prototypes:
    means = torch.arange(4 * 3 * 2, dtype=torch.float32).view(4, 3, 2)
    rows = itertools.product(PAPER_GROUPS.labels, ("female", "male", "any"))
    return Prototypes(means, pd.DataFrame(rows, columns=["group", "gender"]).assign(count=9, average_of="cell"), 1.0)


def test_direction_is_target_average_minus_source_average_of_the_same_attributes():
    p = prototypes()
    combination = p.combination_of({"gender": ["male", "female", None]}, 3)
    assert combination.tolist() == [1, 0, 2]
    direction = p.direction(torch.tensor([0, 1, 2]), torch.tensor([3, 0, 1]), combination)
    expected = [p.means[3, 1] - p.means[0, 1], p.means[0, 0] - p.means[1, 0], p.means[1, 2] - p.means[2, 2]]
    torch.testing.assert_close(direction, torch.stack(expected))


def test_direction_to_the_own_group_is_zero_and_between_groups_is_between():
    p = prototypes()
    any_ = torch.tensor([p.any])
    assert p.direction(torch.tensor([2]), torch.tensor([2]), any_).abs().max() == 0
    half = p.direction(torch.tensor([0]), torch.tensor([[0.0, 0.5, 0.5, 0.0]]), any_)
    whole = [p.direction(torch.tensor([0]), torch.tensor([t]), any_) for t in (1, 2)]
    torch.testing.assert_close(half, (whole[0] + whole[1]) / 2)
    assert as_weights(torch.tensor([[0.25, 0.75]]), 2).tolist() == [[0.25, 0.75]]


def test_attributes_that_are_missing_or_misspelt_are_named():
    for attributes in ({"race": ["W"]}, {"gender": ["male", "male"]}, {"gender": ["F"]}):
        with pytest.raises(ValueError, match=r"\['gender'\]"):
            prototypes().combination_of(attributes, 1)


def test_missing_attributes_are_unknown_one_string_is_of_all_and_a_new_value_is_named():
    p = prototypes()
    assert p.combination_of({"gender": [None, float("nan"), ""]}, 3).tolist() == [p.any] * 3
    assert p.combination_of({"gender": None}, 2).tolist() == [p.any] * 2
    assert p.combination_of({"gender": "male"}, 3).tolist() == [1, 1, 1]
    cells = p.cells.rename(columns={"gender": "race"}).replace({"female": "black", "male": "white"})
    races = Prototypes(p.means, cells, p.spread)
    with pytest.warns(UserWarning, match=r"race \['asian'\] is of no training face: taken as unknown"):
        assert races.combination_of({"race": ["asian", "white"]}, 2).tolist() == [races.any, 1]
    assert races.combination_of({"race": ["White", " BLACK"]}, 2).tolist() == [1, 0], "spelt otherwise"
