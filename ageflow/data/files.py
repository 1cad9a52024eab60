"""What lies in a data set's folder.

Rules that hold for every data set:

* A folder is listed once, with its subfolders; a file is opened only when its face is aligned.
* Every file counts as one of the set, whatever its ending, but what an operating system leaves behind: names that
  begin with a dot (``.DS_Store``, ``._photo.jpg``), ``Thumbs.db``, ``desktop.ini``, and the folder ``__MACOSX``.
* A link counts where it leads to a file inside the data folder. One that leads out, to nothing, to itself or to a
  folder is refused, and so is whatever is no ordinary file (a pipe would never end).
"""

import os
from collections.abc import Iterable, Sequence
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
    """The files of a data set.

    Arguments:
        root: folder that the paths are relative to.
        files: ordinary files, relative paths with slashes, sorted.
        refused: links and other things that are not read, and why.
        passed_over: how many things were left out as an operating system's.
    """

    root: Path
    files: list[str]
    refused: dict[str, str]
    passed_over: int

    @property
    def notes(self) -> list[str]:
        """A sentence for the data card about what was passed over."""
        if not self.passed_over:
            return []
        return [
            f"{self.passed_over:,} hidden files of an operating system (.DS_Store, Thumbs.db and such) are no part."
        ]


def data_folder(settings: PrepareData, expected: str) -> Path:
    """The folder `data_root`.

    Arguments:
        settings: notebook 01's.
        expected: what should be in it, for the message.

    Raises:
        ParameterError: it is not given, not there, not a folder, not readable or empty.
    """
    root = settings.data_root
    wanted = f"for dataset = {settings.dataset!r} it should be the folder that holds {expected}"
    if root is None:
        raise ParameterError(f"data_root is not given: {wanted}. Pass it with -p data_root PATH.")
    try:
        with os.scandir(root) as entries:
            empty = next(entries, None) is None
    except OSError as error:
        raise ParameterError(f"data_root = {root} cannot be read ({error.strerror}): {wanted}.") from None
    if empty:
        raise ParameterError(f"data_root = {root} is empty: {wanted}. Unpack the data set there, or name its folder.")
    return root


def picture_folder(settings: PrepareData, names: Sequence[str], expected: str, nested: bool = False) -> Path:
    """The folder of the pictures: `data_root` itself, or one of a known name up to two folders below it.

    Arguments:
        settings: notebook 01's.
        names: what the folder is called in the set's own layout, in lower case; the first are preferred.
        expected: what should be in `data_root`, for the message.
        nested: the pictures may lie in subfolders of any name.

    Raises:
        ParameterError: there is no such folder, it holds no picture, or it is a link out of `data_root`.
    """
    root = data_folder(settings, expected)
    if root.name.casefold() in names and _holds_pictures(root):
        return root
    level = [root]
    for _ in range(2):
        level = [folder for above in level for folder in _folders(above)]
        for name in names:
            for folder in level:
                if folder.name.casefold() == name:
                    if not folder.resolve().is_relative_to(root):
                        raise ParameterError(
                            f"{folder} is a link out of data_root, to {folder.resolve()}: name that folder as data_root"
                        )
                    if _holds_pictures(folder) or any(map(_holds_pictures, _folders(folder))):
                        return folder
    if _holds_pictures(root) or (nested and any(map(_holds_pictures, _folders(root)))):
        return root
    raise ParameterError(
        f"no pictures are found in data_root = {root}: for dataset = {settings.dataset!r} it should be the folder that "
        f"holds {expected}. Name the folder where they lie, or put them so."
    )


def list_files(folder: Path, root: Path, data_root: Path, skip: Iterable[Path | None] = ()) -> Listing:
    """Everything in a folder and its subfolders.

    Arguments:
        folder: the folder to list.
        root: paths are given relative to it.
        data_root: what no link may lead out of.
        skip: tables that lie among the pictures.
    """
    skipped = {str(path) for path in skip if path is not None}
    start = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
    files: list[str] = []
    refused: dict[str, str] = {}
    passed_over = 0
    waiting = [(str(folder), start)]
    while waiting:
        path, prefix = waiting.pop()
        try:
            entries = list(os.scandir(path))
        except OSError as error:
            refused[prefix.rstrip("/")] = f"the folder cannot be read: {error.strerror}"
            continue
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.name.startswith(".") or entry.name.casefold() in _LITTER:
                passed_over += 1
            elif not _is_unicode(entry.name):
                shown = os.fsencode(name).decode("utf-8", "backslashreplace")
                refused[shown] = "the file's name is not UTF-8: rename it"
            elif entry.is_symlink():
                problem = _wrong_link(Path(entry.path), data_root)
                if problem:
                    refused[name] = problem
                else:
                    files.append(name)
            elif entry.is_dir():
                waiting.append((entry.path, f"{name}/"))
            elif entry.path in skipped:
                continue
            elif entry.is_file():
                files.append(name)
            else:
                refused[name] = "it is no ordinary file"
    return Listing(root, sorted(files), refused, passed_over)


def find_file(names: Sequence[str], places: Iterable[Path]) -> Path | None:
    """The first file of these names (in any case), looked for in these folders; None where there is none."""
    found: dict[str, Path] = {}
    for place in dict.fromkeys(places):
        try:
            for entry in os.scandir(place):
                if entry.name.casefold() in names and entry.is_file():
                    found.setdefault(entry.name.casefold(), Path(entry.path))
        except OSError:
            continue
    return next((found[name] for name in names if name in found), None)


def _wrong_link(link: Path, data_root: Path) -> str | None:
    try:
        target = link.resolve(strict=True)
    except FileNotFoundError:
        return "the link leads to nothing"
    except (OSError, RuntimeError):  # a loop is a RuntimeError before Python 3.13
        return "the link leads to itself"
    if not target.is_relative_to(data_root):
        return "the link leads out of the data folder"
    if target.is_dir():
        return "a link to a folder is not followed"
    return None if target.is_file() else "it is no ordinary file"


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _holds_pictures(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(
                not entry.name.startswith(".") and os.path.splitext(entry.name)[1].casefold() in ENDINGS  # noqa: PTH122
                for entry in entries
            )
    except OSError:
        return False


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if not entry.name.startswith(".") and entry.name.casefold() not in _LITTER and entry.is_dir()
            )
    except OSError:
        return []
