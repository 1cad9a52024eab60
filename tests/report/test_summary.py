"""The summary of many runs: which are averaged, and what is said of their test faces."""

from pathlib import Path

import pytest
import torch

from ageflow.checkpoint import save_checkpoint
from ageflow.report.summary import Measured, Summary, summarise
from ageflow.run import Workspace
from tests.report.evaluations import FINGERPRINTS, judged_rows, real_rows, write_evaluation


def evaluated(runs_root: Path, share: float, people_from: int = 0, **about) -> Measured:
    """A run whose AgeFlow reaches `share` of its targets, judged on faces of people of its own."""
    real = real_rows()
    real["face"] = [f"{people_from}+{face}" for face in real["face"]]
    methods = {"ageflow": judged_rows((share,) * 4, (0.9,) * 4, 1)}
    settings = write_evaluation(runs_root, "cacd", methods, real, **about)
    return Measured(Workspace.of(settings))


def accuracy(summary: Summary) -> dict[str, tuple[float, int]]:
    rows = summary.numbers.query("metric == 'age_accuracy' and method == 'AgeFlow' and group == 'mean'")
    return {row.judged_on: (row.mean, row.seeds) for row in rows.itertuples()}


def test_runs_judged_on_another_set_are_named_by_it_and_not_averaged_with_the_others(tmp_path: Path):
    own = [evaluated(tmp_path / str(seed), 0.25 + seed / 4, people_from=seed) for seed in (0, 1)]
    other = [evaluated(tmp_path / f"other{seed}", 0.5 + seed / 2, external="fgnet/paper") for seed in (0, 1)]
    summary = summarise([*own, *other])
    assert accuracy(summary) == {"its own test faces": (37.5, 2), "fgnet/paper": (75.0, 2)}
    for text in (summary.to_markdown(), summary.to_html()):
        assert "judged on" in text
        assert "fgnet/paper" in text
    assert "| Age accuracy (%) | cacd | fgnet/paper |  | AgeFlow | 75.0 ± 35.4 (2) |" in summary.to_markdown()
    told = summary.notes[0]
    assert "Every seed has its own training and judges, so that" in told
    assert "all seeds have the same: cacd judged on fgnet/paper; the others have their own." in told
    assert "left out whose people the seed was trained on" in told


@pytest.mark.parametrize(
    ("people", "told", "not_told"),
    [
        ((0, 1), "Every seed has its own training, judges and test faces, so that", "the same"),
        ((0, 0), "where all seeds have the same: cacd judged on its own test faces.", "another run's"),
    ],
)
def test_test_faces_of_their_own_are_said_of_seeds_that_have_them(tmp_path: Path, people, told, not_told):
    """A set may say itself which of its faces are to test on, whatever the seed."""
    runs = [evaluated(tmp_path / str(seed), 0.5, people_from=first) for seed, first in enumerate(people)]
    note = summarise(runs).notes[0]
    assert told in note
    assert not_told not in note


def test_a_run_whose_networks_were_trained_again_since_is_named(tmp_path: Path):
    save_checkpoint(tmp_path / "0" / "cacd" / "r1" / "glow", 1, {"weight": torch.zeros(2)}, {})
    of_before = FINGERPRINTS | {"glow": "of before"}
    runs = [evaluated(tmp_path / str(seed), 0.5, people_from=seed, fingerprints=of_before) for seed in (0, 1)]
    (said,) = [note for note in summarise(runs).notes if "trained again" in note]
    assert said.startswith(f"{runs[0].name}: Not of the run as it is now")
