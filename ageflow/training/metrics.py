"""What a training writes while it runs: metrics as JSON lines and as TensorBoard events; sheets of faces."""

import json
from pathlib import Path

import pandas as pd
from torch import Tensor

from ageflow.flows.glow import to_uint8
from ageflow.run import atomic_file, write_atomically


class Metrics:
    """Writes one JSON object a line to ``metrics.jsonl`` and the same numbers to ``tensorboard/``, until closed.

    Arguments:
        folder: the training's folder.
        resume_at: iteration that training continues from; lines beyond it, of a run that was stopped after its last
            checkpoint, are dropped, so that no iteration is logged twice.
    """

    def __init__(self, folder: Path, resume_at: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and reading metrics does without

        self.folder, path = folder, folder / "metrics.jsonl"
        kept = [line for line in _lines(path) if line["iteration"] <= resume_at]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = path.open("a")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_at + 1)

    def close(self) -> None:
        """Close both."""
        self._file.close()
        self._board.close()

    def rewind(self, iteration: int) -> None:
        """Drop what was written after `iteration`: training has gone back to it."""
        self.close()
        self.__init__(self.folder, iteration)

    def write(self, iteration: int, values: dict[str, float], seconds: float | None = None) -> None:
        """Record `values` of one iteration; `seconds` since training began on TensorBoard only: they differ from run to run."""
        self._file.write(json.dumps({"iteration": iteration, **values}) + "\n")
        self._file.flush()
        for name, value in (values if seconds is None else values | {"seconds": seconds}).items():
            self._board.add_scalar(name, value, iteration)


def read_metrics(folder: Path) -> pd.DataFrame:
    """A training's metrics, one row an iteration that was logged; empty where there are none yet."""
    return pd.DataFrame(_lines(folder / "metrics.jsonl"))


def save_faces(images: Tensor, file: Path, columns: int) -> None:
    """Write faces as one PNG file, row by row.

    Arguments:
        images: [B, 3, S, S], float in [0, 1] (clamped) or uint8.
        file: the PNG file; its folder is made.
        columns: faces in a row.
    """
    from torchvision.utils import save_image  # slow to import, and reading metrics does without

    with atomic_file(file) as stream:
        save_image(to_uint8(images) / 255, stream, "PNG", nrow=columns)


def _lines(path: Path) -> list[dict[str, float]]:
    """The whole lines of a JSON-lines file; a last one that was cut short by a kill is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
