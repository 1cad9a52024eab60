"""What prepared faces were made from, noted beside them, and whether it has changed since.

``source.json`` holds the folder that the column `file` is relative to, what `data_root` was like, and for CACD a hash
of the user's CSV of genders. The first versions noted the folder alone, later ones all but the CSV: what is not noted
is not compared.
"""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

from ageflow.config import PrepareData
from ageflow.data.faces import SETTINGS_FILE
from ageflow.data.files import list_files
from ageflow.run import files_state, write_atomically

_SOURCE_FILE = "source.json"
_OF_THEN = "these are the faces and labels of then. To take it as it is now name another run, or delete that folder"


def state_of(settings: PrepareData) -> dict[str, Any]:
    """What tells whether the files that faces are made from have changed: ``state`` of `data_root`, and ``genders``."""
    state: dict[str, Any] = {"state": _data_state(settings, settings.data_root)}
    genders = _genders_state(settings)
    return state if genders is None else state | {"genders": genders}


def write_source(folder: Path, root: Path, state: dict[str, Any]) -> None:
    """Note in `folder` what its faces were made from.

    Arguments:
        folder: of the prepared faces.
        root: folder that their column `file` is relative to.
        state: of `state_of`, before anything was read.
    """
    write_atomically(folder / _SOURCE_FILE, json.dumps({"folder": str(root.resolve()), **state}).encode())


def source_folder(folder: Path) -> Path:
    """The folder of the raw pictures that a prepared folder was made from."""
    return Path(json.loads((folder / _SOURCE_FILE).read_text())["folder"])


def tell_of_changes(settings: PrepareData, folder: Path) -> None:
    """Warn where the raw data set, or the CSV of genders, is not what the faces in `folder` were made from."""
    source, made = folder / _SOURCE_FILE, folder / SETTINGS_FILE
    if not (source.is_file() and made.is_file()):
        return
    noted = json.loads(source.read_text())
    before, root = noted.get("state"), json.loads(made.read_text()).get("data_root", "None")
    data_root = settings.data_root or (None if root == "None" else Path(root))
    now = None if before is None else _data_state(settings, data_root)
    if now is not None and now != before:
        warnings.warn(
            f"data_root = {data_root} has changed since {folder} was made of it (then {before['files']:,} files, now "
            f"{now['files']:,}; or some were written again, or copied without their times): {_OF_THEN}",
            stacklevel=3,
        )
    genders = _genders_state(settings) if "genders" in noted else None
    if genders is not None and genders != noted["genders"]:
        warnings.warn(
            f"genders = {settings.genders} has changed since {folder} was made with it: {_OF_THEN}", stacklevel=3
        )


def _data_state(settings: PrepareData, data_root: Path | None) -> dict[str, str | int] | None:
    """The number of a raw data set's files, and a hash; None where there is none.

    Runs that lie in the data set's folder are no part of it.
    """
    if data_root is None or not data_root.is_dir():
        return None
    files = list_files(data_root, settings.runs_root).files
    return {"files": len(files), "hash": files_state(data_root, files)}


def _genders_state(settings: PrepareData) -> str | None:
    """A hash of what the user's CSV of genders says; None where it is not there, or of a set that reads none."""
    if settings.dataset != "cacd" or settings.genders is None or not settings.genders.is_file():
        return None
    # Not its time of change: it is small, and saved again as it was it says the same.
    return hashlib.sha256(settings.genders.read_bytes()).hexdigest()
