"""What a notebook's result depends on, and what it depended on when it last succeeded.

Kept in ``runs/<dataset>/<run>/notebooks/state.json``.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat

from ageflow.config import ParameterError
from ageflow.run import same_place, sole_writer


def notebook_state(path: Path) -> str:
    """A hash of a notebook's code and text; outputs, cell ids and metadata do not count."""
    cells = nbformat.read(path, as_version=4).cells
    told = json.dumps([(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells])
    return hashlib.sha256(told.encode()).hexdigest()


@dataclass(frozen=True)
class Inputs:
    """Everything the result of a notebook depends on.

    Arguments:
        notebook: state of its source.
        parameters: its resolved settings, as JSON values.
        folders: state of each folder it reads, by name.
    """

    notebook: str
    parameters: Mapping[str, Any]
    folders: Mapping[str, str]

    def changes_since(self, before: "Inputs") -> str | None:
        """What differs from `before`, in words; None when nothing does."""
        told = []
        if self.notebook != before.notebook:
            told.append("the notebook changed")
        for what, now, then in (
            ("parameters", self.parameters, before.parameters),
            ("inputs", self.folders, before.folders),
        ):
            # A sweep writes out what a single run is given as a relative path.
            names = sorted(name for name in {*now, *then} if not same_place(now.get(name), then.get(name)))
            if names:
                told.append(f"{what} changed ({', '.join(names)})")
        return "; ".join(told) or None


class History:
    """The record of one run's notebooks; every change is written at once and atomically.

    Arguments:
        path: the JSON file; it need not exist.

    Raises:
        ParameterError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.is_file():
            return {}
        try:
            entries = json.loads(self.path.read_text())
            if not isinstance(entries, dict):
                raise ValueError("it holds no notebooks")
        except ValueError as error:  # of JSON, or of UTF-8
            raise ParameterError(
                f"{self.path} is damaged ({error}): delete it, and every notebook runs again"
            ) from None
        return entries

    def why(self, name: str, inputs: Inputs, *, complete: bool, made: Mapping[str, str] | None = None) -> str | None:
        """Why `name` must run; None when it need not.

        Arguments:
            name: the notebook.
            inputs: what its result depends on now.
            complete: whether everything it makes is there.
            made: state of each folder that it makes, by name, as they are now; None: not to be compared.
        """
        entry = self._entries.get(name)
        if entry is None:
            return "not run yet"
        if of_inputs := inputs.changes_since(Inputs(**entry["inputs"])):
            return of_inputs
        if not complete:
            return "something it made is gone"
        then, now = entry.get("made", {}), made or {}  # the first versions did not note it
        changed = sorted(folder for folder in then.keys() & now.keys() if now[folder] != then[folder])
        return f"what it made has changed since ({', '.join(changed)})" if changed else None

    def forget(self, name: str) -> None:
        """Drop the record of `name`: what it made is about to change."""
        if name in self._entries:
            self._write(name, None)

    def remember(
        self, name: str, inputs: Inputs, *, minutes: float, finished: datetime, made: Mapping[str, str] | None = None
    ) -> None:
        """Record that `name` succeeded on `inputs`, in so many minutes, and the state of the folders that it made."""
        entry = {
            "inputs": asdict(inputs),
            "made": dict(made or {}),
            "minutes": round(minutes, 3),
            "finished": finished.isoformat(timespec="seconds"),
        }
        self._write(name, entry)

    def minutes(self, name: str) -> float | None:
        """Minutes that `name` took when it last ran; None if it has not."""
        entry = self._entries.get(name)
        return None if entry is None else entry["minutes"]

    def finished(self, name: str) -> datetime | None:
        """When `name` last succeeded; None if it has not."""
        entry = self._entries.get(name)
        return None if entry is None else datetime.fromisoformat(entry["finished"])

    def _write(self, name: str, entry: dict[str, Any] | None) -> None:
        """Change the record of `name` alone: another batch may have written of its own notebooks meanwhile."""
        with sole_writer(self.path, wait=True):
            self._entries = self._read()
            if entry is None:
                self._entries.pop(name, None)
            else:
                self._entries[name] = entry
            temporary = self.path.with_name(self.path.name + ".tmp")
            temporary.write_text(json.dumps(self._entries, indent=1))
            temporary.replace(self.path)
