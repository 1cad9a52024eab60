"""What lies in a data set's folder.

Rules that hold for every data set:

* `data_root` is listed once, with its subfolders; a file is opened only when its face is aligned.
* Every file counts as one of the set, whatever its ending, except what an operating system leaves behind: names that
  begin with a dot (``.DS_Store``, ``._photo.jpg``), ``Thumbs.db``, ``desktop.ini``, and the folder ``__MACOSX``.
* A link counts where it leads to a file inside the data folder. One that leads out, to nothing, to itself or to a
  folder is refused, and so is whatever is no ordinary file (a pipe would never end).
"""

import os
import posixpath
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ageflow.config import ParameterError, PrepareData

ENDINGS = frozenset(  # of pictures
    f".{kind}"
    for kind in ("jpg", "jpeg", "jpe", "jfif", "png", "bmp", "gif", "tif", "tiff", "webp", "ppm", "pgm", "jp2", "avif")
)
_LITTER = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"))


@dataclass(frozen=True)
class Listing:
    """The files of a folder and its subfolders.

    Arguments:
        root: folder that the paths are relative to.
        files: ordinary files, relative paths with slashes, sorted.
        refused: links and other things that are not read, and why.
        hidden: how many things were left out as an operating system's.
    """

    root: Path
    files: list[str]
    refused: dict[str, str]
    hidden: int = 0

    @property
    def notes(self) -> list[str]:
        """A sentence for the data card about what was left out."""
        note = f"{self.hidden:,} hidden files of an operating system (.DS_Store, Thumbs.db and such) are not counted."
        return [note] if self.hidden else []

    @property
    def tables(self) -> list[str]:
        """The CSV and TSV files."""
        return [file for file in self.files if file.casefold().endswith((".csv", ".tsv"))]

    def find(self, *names: str) -> str | None:
        """The uppermost file of the first of these names (lower case; on disk in any); None where there is none."""
        found = [(posixpath.basename(file).casefold(), file) for file in self.files]
        ranked = [(names.index(name), file.count("/"), file) for name, file in found if name in names]
        return min(ranked)[-1] if ranked else None

    def below(self, folder: str, without: Collection[str | None] = ()) -> "Listing":
        """What lies in one of the folders ("" for all), `without` some of the files."""
        start = f"{folder}/" if folder else ""
        files = [file.removeprefix(start) for file in self.files if file.startswith(start) and file not in without]
        refused = {file.removeprefix(start): why for file, why in self.refused.items() if file.startswith(start)}
        return Listing(self.root / folder, files, refused, self.hidden)


def is_picture(name: str) -> bool:
    """Whether a file's name ends as a picture's does."""
    return posixpath.splitext(name)[1].casefold() in ENDINGS


def list_data(settings: PrepareData, expected: str) -> Listing:
    """Everything in `data_root` but the runs.

    Arguments:
        settings: notebook 01's.
        expected: what should be in it, for the message.

    Raises:
        ParameterError: `data_root` is not given, not there, not a folder, not readable or empty.
    """
    root = settings.data_root
    try:
        problem = "is not given" if root is None else "" if any(root.iterdir()) else f"= {root} is empty"
    except OSError as error:
        problem = f"= {root} cannot be read ({error.strerror})"
    if problem:
        raise _not_the_data(settings, problem, expected)
    return list_files(root, settings.runs_root)


def find_pictures(settings: PrepareData, names: Sequence[str], expected: str) -> tuple[Listing, str]:
    """Everything in `data_root`, and the folder of the pictures: the uppermost of a known name, or else "", all of it.

    Arguments:
        settings: notebook 01's.
        names: what the folder is called in the set's own layout, in lower case; the first are preferred.
        expected: what should be in `data_root`, for the message.

    Raises:
        ParameterError: no pictures are there, or their folder is a link out of `data_root`; or as `list_data`.
    """
    everything = list_data(settings, expected)
    root = everything.root
    holding = {posixpath.dirname(file) for file in everything.files if is_picture(file)}
    if "" in holding and root.name.casefold() in names:
        return everything, ""
    above = [folder.split("/")[:depth] for folder in holding for depth in range(1, folder.count("/") + 2)]
    known = [(len(parts), names.index(parts[-1].casefold()), parts) for parts in above if parts[-1].casefold() in names]
    if known:
        return everything, "/".join(min(known)[-1])
    for link in everything.refused:
        if posixpath.basename(link).casefold() in names and (root / link).is_dir():
            target = (root / link).resolve()
            raise ParameterError(
                f"{root / link} is a link out of data_root, to {target}: name that folder as data_root"
            )
    if not holding:
        raise _not_the_data(settings, f"= {root} holds no pictures", expected)
    return everything, ""


def list_files(root: Path, without: Path | None = None) -> Listing:
    """Everything in a folder and its subfolders, but `without` one of these (where the runs are)."""
    files: list[str] = []
    refused: dict[str, str] = {}
    hidden = 0
    waiting = [(str(root), "")]
    while waiting:
        path, prefix = waiting.pop()
        try:
            entries = list(os.scandir(path))
        except OSError as error:
            refused[prefix.rstrip("/")] = f"the folder cannot be read: {error.strerror}"
            continue
        for entry in entries:
            name = f"{prefix}{entry.name}"
            shown = os.fsencode(name).decode("utf-8", "backslashreplace")
            if entry.name.startswith(".") or entry.name.casefold() in _LITTER:
                hidden += 1
            elif shown != name:
                refused[shown] = "the file's name is not UTF-8: rename it"
            elif entry.is_dir(follow_symlinks=False):
                if Path(entry.path) != without:
                    waiting.append((entry.path, f"{name}/"))
            elif reason := _refusal(entry, root):
                refused[name] = reason
            else:
                files.append(name)
    return Listing(root, sorted(files), refused, hidden)


def _refusal(entry: os.DirEntry, root: Path) -> str | None:
    """Why something that is no folder is not read; None where it is read."""
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))
        if not target.is_relative_to(root):
            return "the link leads out of the data folder"
        if not target.exists():
            return "the link leads to nothing or to itself"
        if target.is_dir():
            return "a link to a folder is not followed"
    return None if entry.is_file() else "it is no ordinary file"


def _not_the_data(settings: PrepareData, problem: str, expected: str) -> ParameterError:
    return ParameterError(
        f"data_root {problem}: for dataset = {settings.dataset!r} it should be the folder that holds {expected}. Pass that "
        "folder with -p data_root PATH"
    )
