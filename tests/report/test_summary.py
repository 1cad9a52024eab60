"""The summary of many runs: which are averaged, and what is said of their test faces."""

from pathlib import Path

import pytest
import torch

from ageflow.checkpoint import save_checkpoint
from ageflow.report.summary import Measured, Summary, summarise
from ageflow.run import Manifest, Workspace
from tests.report.evaluations import FINGERPRINTS, judged_rows, real_rows, write_evaluation


def evaluated(runs_root: Path, share: float, people_from: int = 0, **about) -> Measured:
    """A run whose AgeFlow reaches `share` of its targets, judged on faces of people of its own."""
    real = real_rows()
    real["face"] = f"{people_from}+" + real["face"]
    settings = write_evaluation(runs_root, "cacd", {"ageflow": judged_rows((share,) * 4, (0.9,) * 4)}, real, **about)
    return Measured(Workspace.of(settings))


def accuracy(summary: Summary) -> dict[str, tuple[float, int]]:
    rows = summary.numbers.query("metric == 'age_accuracy' and method == 'AgeFlow' and group == 'mean'")
    return {row.judged_on: (row.mean, row.seeds) for row in rows.itertuples()}


def test_runs_judged_on_another_set_are_named_by_it_and_not_averaged_with_the_others(tmp_path: Path):
    own = [evaluated(tmp_path / str(seed), 0.25 + seed / 4, people_from=seed) for seed in (0, 1)]
    other = [evaluated(tmp_path / f"other{seed}", 0.5 + seed / 2, external="fgnet/paper") for seed in (0, 1)]
    summary = summarise([*own, *other])
    assert accuracy(summary) == {"its own test faces": (37.5, 2), "fgnet/paper": (75.0, 2)}
    files = {path.suffix: path.read_text() for path in summary.write(tmp_path / "summary")}
    assert all("judged" in files[kind] and "fgnet/paper" in files[kind] for kind in (".csv", ".md", ".html"))
    assert "| Age accuracy (%) | cacd | fgnet/paper |  | AgeFlow | 75.0 ± 35.4 (2) |" in files[".md"]
    assert "test faces, less the people each was trained on, of cacd judged on fgnet/paper." in summary.notes[1]


@pytest.mark.parametrize(
    ("people", "said"),
    [
        ((0, 1), "Every seed has its own training and judges, and test faces."),
        ((0, 0), "all seeds have the same test faces, less the people each was trained on, of cacd judged on its own"),
    ],
)
def test_test_faces_of_their_own_are_said_of_seeds_that_have_them(tmp_path: Path, people, said):
    """A set may say itself which of its faces are to test on, whatever the seed."""
    runs = [evaluated(tmp_path / str(seed), 0.5, people_from=first) for seed, first in enumerate(people)]
    assert said in summarise(runs).notes[1]


def test_a_run_that_was_trained_again_since_or_has_no_evaluation_is_named(tmp_path: Path):
    save_checkpoint(tmp_path / "0/cacd/r1/glow", 1, {"model.weight": torch.zeros(2)}, Manifest(), {})
    of_before = FINGERPRINTS | {"glow": "of before"}
    runs = [evaluated(tmp_path / str(seed), 0.5, people_from=seed, fingerprints=of_before) for seed in (0, 1)]
    nothing = Measured(Workspace(tmp_path, "cacd", "nothing"))
    notes = summarise([*runs, nothing]).notes
    assert sum(note.startswith("cacd/r1: Not of the run as it is now") for note in notes) == 1
    assert any(note.startswith("Left out: cacd/nothing: this step needs the methods' evaluation") for note in notes)
    assert summarise([nothing]) is None
