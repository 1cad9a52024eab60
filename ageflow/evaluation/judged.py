"""The judged faces of a run on disk: ``evaluation/<method>.parquet``, and what they were made from."""

import hashlib
import io
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ageflow.run import write_atomically

_KEY = b"ageflow"


class NotJudgedError(ValueError):
    """There is nothing to judge, or a file does not hold judged faces; the message says what to do."""


@dataclass(frozen=True)
class Judged:
    """Judged faces.

    Arguments:
        rows: one row a judged face; see `ageflow.evaluation.judging`.
        about: where they come from: method, dataset, run, preset, evaluated (date), embedder, faces, identities and
            the fingerprints of faces, weights and judges.
    """

    rows: pd.DataFrame
    about: dict[str, Any]


def file_name(method: str) -> str:
    """The file of a method, ``real`` for the real faces."""
    return f"{method}.parquet"


def write_judged(path: Path, rows: pd.DataFrame, about: dict[str, Any]) -> Judged:
    """Keep judged faces, in one piece or not at all; `about` goes into the file's own metadata."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: json.dumps(about).encode()})
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    write_atomically(path, content.getvalue())
    return Judged(rows, about)


def read_judged(path: Path) -> Judged:
    """Read what `write_judged` wrote.

    Raises:
        NotJudgedError: the file says nothing of where it comes from.
    """
    table = pq.read_table(path)
    about = (table.schema.metadata or {}).get(_KEY)
    if about is None:
        raise NotJudgedError(f"{path} does not say what it was made from: delete it and run 06_ablations.ipynb again")
    return Judged(table.to_pandas(), json.loads(about))


def digest(folder: Path) -> str:
    """A hash of the arrays that a step left in its folder, where it trains nothing; a training has its `fingerprint`."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        stat = path.stat()
        whole.update(_file_digest(path, stat.st_size, stat.st_mtime_ns))
    return whole.hexdigest()[:16]


@lru_cache
def _file_digest(path: Path, size: int, changed: int) -> bytes:  # size and time of change tell a new file of that name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
