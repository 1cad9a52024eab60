"""What a training writes while it runs: metrics as JSON lines, which anything reads, and as TensorBoard events; faces."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from ageflow.flows.glow import to_uint8
from ageflow.storage import write_atomically

__all__ = ["Metrics", "read_metrics", "save_faces"]


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
        from torch.utils.tensorboard import SummaryWriter  # here: who only reads metrics need not wait for it

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


def save_faces(images: Tensor, file: Path, columns: int) -> None:
    """Write faces as one PNG file, row by row, with two black pixels between them and around.

    Not by `torchvision.utils.save_image`, whose package takes seconds to import: every training would wait for it.

    Arguments:
        images: [B, 3, S, S], float in [0, 1] (clamped) or uint8.
        file: the PNG file; its folder is made.
        columns: faces in a row.
    """
    cells = np.pad(
        to_uint8(images).permute(0, 2, 3, 1).cpu().numpy(), ((0, -len(images) % columns), (2, 0), (2, 0), (0, 0))
    )
    rows, side = len(cells) // columns, cells.shape[1]
    sheet = cells.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
    held = io.BytesIO()
    Image.fromarray(np.pad(sheet, ((0, 2), (0, 2), (0, 0)))).save(held, "PNG")
    write_atomically(file, held.getvalue())


def _lines(path: Path) -> list[dict[str, float]]:
    """The whole lines of a JSON-lines file; a last one that was cut short by a kill is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text().splitlines(keepends=True):
        if text.endswith("\n"):
            lines.append(json.loads(text))
    return lines
