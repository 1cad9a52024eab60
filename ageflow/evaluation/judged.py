"""The judged faces of a run on disk: ``evaluation/<method>.parquet``, and what they were made from.

They are judged a batch at a time. Each batch lies in a file of its own until all are there, so that a stop costs one.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ageflow.run import atomic_file, digest
from ageflow.work import resumable_map

_KEY = b"ageflow"


class NotJudgedError(ValueError):
    """There is nothing to judge, or a file does not hold judged faces; the message says what to do."""


@dataclass(frozen=True)
class Judged:
    """Judged faces.

    Arguments:
        rows: one row a judged face; see `ageflow.evaluation.protocol`.
        about: where they come from: method, dataset, run, preset, evaluated (date), embedder, faces, identities and
            the fingerprints of faces, weights and judges.
    """

    rows: pd.DataFrame
    about: dict[str, Any]


def file_name(method: str) -> str:
    """The file of a method, ``real`` for the real faces."""
    return f"{method}.parquet"


def write_judged(path: Path, rows: pd.DataFrame, about: dict[str, Any]) -> Judged:
    """Keep judged faces, whole or not at all; `about` goes into the file's own metadata."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, _KEY: json.dumps(about).encode()})
    with atomic_file(path) as file:
        pq.write_table(table, file, compression="zstd")
    return Judged(rows, about)


def read_judged(path: Path) -> Judged:
    """Read what `write_judged` wrote.

    Raises:
        NotJudgedError: the file does not say where it comes from.
    """
    table = pq.read_table(path)
    about = (table.schema.metadata or {}).get(_KEY)
    if about is None:
        raise NotJudgedError(f"{path} does not say what it was made from: delete it and run 06_ablations.ipynb again")
    return Judged(table.to_pandas(), json.loads(about))


@dataclass(frozen=True)
class Batches:
    """Judges faces a batch at a time, and continues after the batches that were kept.

    Arguments:
        folder: keeps the batches; whoever has the whole may delete it.
        made_from: fingerprints of everything that the rows depend on; batches made from anything else are made again.
        size: faces in a batch. In batches of another size the last bits differ, so they are made again, too.
        title: of the progress bar, which `progress` draws.
    """

    folder: Path
    made_from: Mapping[str, str]
    size: int = 64
    title: str = ""
    progress: bool = True

    def rows(self, judge: Callable[[slice], pd.DataFrame], total: int) -> pd.DataFrame:
        """All rows: the same, whether it was stopped in between or not.

        Arguments:
            judge: the rows of some faces, one a face; they depend on nothing but these faces.
            total: how many faces there are.
        """
        starts = range(0, total, self.size)
        files = [self.folder / f"{number:05d}.parquet" for number in range(len(starts))]
        for file in files:
            try:
                pq.read_metadata(file)
            except (pa.ArrowException, OSError):  # not there, or damaged: then the batch is not done, either
                file.with_suffix(".json").unlink(missing_ok=True)

        def keep(number: int) -> dict[str, int]:
            rows = judge(slice(starts[number], min(starts[number] + self.size, total)))
            with atomic_file(files[number]) as file:
                rows.to_parquet(file, index=False)
            return {"rows": len(rows)}

        keys = [digest([self.made_from, total, self.size])] * len(starts)
        sizes = [min(self.size, total - start) for start in starts]
        shown = {"title": self.title, "unit": "face", "show": self.progress}
        resumable_map(keep, range(len(starts)), self.folder, keys, sizes=sizes, **shown)
        return pd.concat(map(pd.read_parquet, files), ignore_index=True)
