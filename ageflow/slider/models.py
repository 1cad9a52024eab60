"""Which runs there are to explore."""

import contextlib
import json
from datetime import datetime
from pathlib import Path

import pandas as pd

from ageflow.checkpoint import CheckpointError, checkpoints, file_metadata
from ageflow.run import Workspace

_COLUMNS = ("data set", "run", "image size", "has", "GLOW trained")
# In the order of the notebooks; GLOW itself every one of them has.
_WORTH_TELLING = {
    "faces": "faces",
    "prototypes": "averages",
    "ictm": "ICTM",
    "no_ictm": "w/o ICTM",
    "classifiers": "classifiers",
}


def find_models(runs_root: Path) -> pd.DataFrame:
    """Every run with a trained GLOW, the newest first.

    Arguments:
        runs_root: folder of all runs; one that does not exist holds none.

    Returns:
        Columns ``data set``, ``run``, ``image size`` (pixels; missing where the checkpoint cannot be read), ``has``
        (what else is there, in words) and ``GLOW trained`` (when, to the minute).
    """
    rows = []
    for marker in sorted(Path(runs_root).glob("*/*/glow/manifest.json"), key=lambda file: -file.stat().st_mtime):
        dataset, run = marker.parts[-4:-2]
        try:
            workspace = Workspace(Path(runs_root), dataset, run)
        except ValueError:  # a folder that no run could have made
            continue
        has = [words for artefact, words in _WORTH_TELLING.items() if workspace.has(artefact)]
        trained = f"{datetime.fromtimestamp(marker.stat().st_mtime):%Y-%m-%d %H:%M}"
        rows.append((dataset, run, _image_size(marker.parent), ", ".join(has) or "nothing else", trained))
    table = pd.DataFrame(rows, columns=_COLUMNS)
    return table.astype({"image size": "Int64"})


def _image_size(folder: Path) -> int | None:
    """As the newest checkpoint's metadata say; whether the file is whole, choosing that run will show."""
    for _, path in reversed(checkpoints(folder)):
        with contextlib.suppress(CheckpointError, KeyError, TypeError, ValueError):
            return json.loads(file_metadata(path)["networks"])["glow"]["image_size"]
    return None
