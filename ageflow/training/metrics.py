"""Metrics as JSON lines, which anything reads, and as TensorBoard events."""

import json
from pathlib import Path

import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from ageflow.storage import write_atomically

__all__ = ["Metrics", "read_metrics"]


class Metrics:
    """Writes one JSON object a line to ``metrics.jsonl`` and the same numbers to ``tensorboard/``.

    Arguments:
        folder: the training's folder.
        resume_at: iteration that training goes on from; lines beyond it, of a run that was stopped after its last
            checkpoint, are dropped, so that no iteration stands twice.
    """

    def __init__(self, folder: Path, resume_at: int = 0) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [line for line in _lines(self.path) if line["iteration"] <= resume_at]
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = self.path.open("a")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_at + 1)

    def write(self, iteration: int, values: dict[str, float]) -> None:
        """Record `values` of one iteration."""
        self._file.write(json.dumps({"iteration": iteration, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, iteration)

    def write_time(self, iteration: int, seconds: float) -> None:
        """Record the seconds since this call of `train` began, on TensorBoard only: they differ from run to run."""
        self._board.add_scalar("seconds", seconds, iteration)

    def close(self) -> None:
        """Close both files."""
        self._file.close()
        self._board.close()


def read_metrics(folder: Path) -> pd.DataFrame:
    """A training's metrics, one row an iteration that was logged; empty where there are none yet."""
    return pd.DataFrame(_lines(folder / "metrics.jsonl"))


def _lines(path: Path) -> list[dict[str, float]]:
    """The whole lines of a JSON-lines file; a last one that was cut short by a kill is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text().splitlines(keepends=True):
        if text.endswith("\n"):
            lines.append(json.loads(text))
    return lines
