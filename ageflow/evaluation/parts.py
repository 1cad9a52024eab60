"""Faces before the judges a batch at a time; what is judged is kept as it comes, so that a stop costs half a minute."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pyarrow import ArrowException
from torch import Tensor

from ageflow.evaluation.judged import NotJudgedError, read_judged, write_judged
from ageflow.work import progress_bar

_SECONDS = 30  # between two parts: a small evaluation is one


@dataclass(frozen=True)
class Parts:
    """What is judged of something so far: files of whole batches, in order.

    Arguments:
        folder: holds them.
        made_from: fingerprints of all that the result depends on; parts that were made from anything else are never
            taken, but removed.
    """

    folder: Path
    made_from: Mapping[str, str]

    def read(self, total: int, batch: int) -> list[pd.DataFrame]:
        """The rows of the first so many of `total` faces, judged `batch` at a time."""
        found, done = [], 0
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                part = read_judged(path)
            except (ArrowException, NotJudgedError, OSError):  # damaged
                part = None
            # In batches of another size the last bits are others.
            if part is not None and part.about == self._about(done, total, batch):
                found.append(part.rows)
                done += len(part.rows)
            else:
                path.unlink()
        return found

    def write(self, rows: pd.DataFrame, start: int, total: int, batch: int) -> None:
        """Keep the rows from face `start` on, in one piece or not at all."""
        write_judged(self.folder / f"{start:08d}.parquet", rows, self._about(start, total, batch))

    def _about(self, start: int, total: int, batch: int) -> dict[str, object]:
        return {"fingerprints": dict(self.made_from), "start": start, "total": total, "batch": batch}


def in_batches(
    judge: Callable[[slice], pd.DataFrame],
    total: int,
    batch: int,
    title: str,
    progress: bool = True,
    parts: Parts | None = None,
) -> pd.DataFrame:
    """Judge faces a batch at a time, and go on after the batches that were kept.

    Arguments:
        judge: the rows of some faces, one a face; they depend on nothing but these faces.
        total: how many there are.
        batch: faces at a time.
        title: of the progress bar, which `progress` draws.
        parts: where the batches are kept; None: nowhere.

    Returns:
        All rows: the same, whether it was stopped in between or not.
    """
    rows = [] if parts is None else parts.read(total, batch)
    kept = done = sum(map(len, rows))
    fresh: list[pd.DataFrame] = []
    written = time.monotonic()

    def keep() -> None:
        nonlocal kept, written
        if parts is not None and fresh:
            parts.write(pd.concat(fresh, ignore_index=True), kept, total, batch)
        rows.extend(fresh)
        fresh.clear()
        kept, written = done, time.monotonic()

    with progress_bar(total=total, initial=done, unit="face", title=title, show=progress) as bar:
        try:
            while done < total:
                fresh.append(judge(slice(done, min(done + batch, total))))
                done += len(fresh[-1])
                bar.update(len(fresh[-1]))
                if time.monotonic() - written >= _SECONDS:
                    keep()
        finally:  # also where it is interrupted, and at the end: other methods may come before the whole is written
            keep()
    return pd.concat(rows, ignore_index=True)


def pop_tensor(rows: pd.DataFrame, column: str) -> Tensor:
    """Take a column of vectors out of `rows`, as a tensor [rows, d]."""
    return torch.from_numpy(np.stack(rows.pop(column).to_list()))
