"""The summary of many runs: which are averaged, and which are left out."""

from pathlib import Path

import pandas as pd
import torch

from ageflow.checkpoint import save_checkpoint
from ageflow.report.summary import summarise
from ageflow.run import Manifest, Workspace
from tests.report.evaluations import FINGERPRINTS, judged_rows, write_evaluation


def evaluated(runs_root: Path, share: float, **about) -> tuple[Workspace, str]:
    """A run whose AgeFlow reaches `share` of its targets."""
    methods = {"ageflow": judged_rows((share,) * 4, (0.9,) * 4)}
    return Workspace.of(write_evaluation(runs_root, "cacd", methods, **about)), ""


def test_runs_judged_on_another_set_are_named_by_it_and_not_averaged_with_the_others(tmp_path: Path):
    own = [evaluated(tmp_path / str(seed), 0.25 + seed / 4) for seed in (0, 1)]
    other = [evaluated(tmp_path / f"other{seed}", 0.5 + seed / 2, external="fgnet/paper") for seed in (0, 1)]
    files = {path.suffix: path for path in summarise([*own, *other], tmp_path / "summary", ["Mind this."])}
    numbers = pd.read_csv(files[".csv"]).query("metric == 'age_accuracy' and method == 'AgeFlow' and group == 'mean'")
    found = {row.judged_on: (row.mean, row.seeds) for row in numbers.itertuples()}
    assert found == {"its own test faces": (37.5, 2), "fgnet/paper": (75.0, 2)}
    for kind in (".md", ".html"):
        text = files[kind].read_text()
        assert all(said in text for said in ("fgnet/paper", "its own test faces", "Mind this.", "over the seeds"))
    assert "| Age accuracy (%) | cacd | fgnet/paper |  | AgeFlow | 75.0 ± 35.4 (2) |" in files[".md"].read_text()


def test_a_run_that_was_trained_again_since_or_has_no_evaluation_is_named(tmp_path: Path):
    save_checkpoint(tmp_path / "0/cacd/r1/glow", 1, {"model.weight": torch.zeros(2)}, Manifest(), {})
    runs = [evaluated(tmp_path / str(seed), 0.5, fingerprints=FINGERPRINTS | {"glow": "of before"}) for seed in (0, 1)]
    nothing = Workspace(tmp_path, "cacd", "nothing"), ""
    text = summarise([*runs, nothing], tmp_path)[1].read_text()
    assert text.count("cacd/r1: Not of the run as it is now") == 1
    assert "Left out: cacd/nothing: this step needs the methods' evaluation" in text
    assert summarise([nothing], tmp_path) == []
