"""What lies in a data set's folder, and which row of its table belongs to which file.

Rules that hold for every data set:

* `data_root` is listed once, with its subfolders; a file is opened only when its face is aligned.
* Every file counts as one of the set, whatever its ending, except what an operating system leaves behind: names that
  begin with a dot (``.DS_Store``, ``._photo.jpg``), ``Thumbs.db``, ``desktop.ini``, and the folder ``__MACOSX``.
* A link counts where it leads to a file inside the data folder. One that leads out, to nothing, to itself or to a
  folder is refused, and so is whatever is no ordinary file (a pipe would never end).
* The path in a row only ever looks a file up in the `Listing`. It is never opened, so it cannot lead anywhere else.
* A row and the file it names are one thing, so each row and each file ends as one face or as one line of rejected.csv.
"""

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from ageflow.config import ParameterError, PrepareData
from ageflow.data.pictures import ENDINGS
from ageflow.data.records import Rejection, with_reasons

_LITTER = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"))


# -- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listing:
    """The files of a folder and its subfolders.

    Arguments:
        root: folder that the paths are relative to.
        files: ordinary files, relative paths with slashes, sorted.
        refused: links and other things that are not read, and why.
    """

    root: Path
    files: list[str]
    refused: dict[str, str]

    @property
    def tables(self) -> list[str]:
        """The CSV and TSV files, those of the uppermost folder first."""
        tables = [file for file in self.files if file.casefold().endswith((".csv", ".tsv"))]
        return sorted(tables, key=lambda file: file.count("/"))

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
        return Listing(self.root / folder, files, refused)


def is_picture(name: str) -> bool:
    """Whether a file's name ends as a picture's does."""
    return name.casefold().endswith(ENDINGS)


def find_pictures(settings: PrepareData, names: Sequence[str], expected: str) -> tuple[Listing, str]:
    """Everything in `data_root` but the runs, and the pictures' folder: the uppermost of a known name, else "", all of it.

    Arguments:
        settings: notebook 01's.
        names: what the folder is called in the set's own layout, in lower case; the first are preferred.
        expected: what should be in `data_root`, for the message.

    Raises:
        ParameterError: `data_root` is not given, cannot be read or holds no pictures, or the pictures' folder is a link
            out of it.
    """
    root = settings.data_root
    everything = Listing(Path(), [], {}) if root is None else list_files(root, settings.runs_root)
    holding = {posixpath.dirname(file) for file in everything.files if is_picture(file)}
    if "" in holding and everything.root.name.casefold() in names:
        return everything, ""
    above = {place for folder in holding for place in PurePosixPath(folder, "picture").parents}
    known = [(len(at.parts), names.index(at.name.casefold()), str(at)) for at in above if at.name.casefold() in names]
    if known:
        return everything, min(known)[-1]
    links = [everything.root / link for link in everything.refused if posixpath.basename(link).casefold() in names]
    for link in filter(Path.is_dir, links):
        raise ParameterError(f"{link} is a link out of data_root, to {link.resolve()}: name that folder as data_root")
    if not holding:
        problem = "is not given" if root is None else f"= {root}: {everything.refused.get('', 'it holds no pictures')}"
        raise ParameterError(
            f"data_root {problem}; for dataset = {settings.dataset!r} it should be the folder that holds {expected}. Pass "
            "that folder with -p data_root PATH"
        )
    return everything, ""


def list_files(root: Path, without: Path | None = None) -> Listing:
    """Everything in a folder and its subfolders, but `without` one of these (where the runs are)."""
    files: list[str] = []
    refused: dict[str, str] = {}
    waiting = [(str(root), "")]
    while waiting:
        path, prefix = waiting.pop()
        try:
            entries = list(os.scandir(path))
        except OSError as error:
            refused[prefix.rstrip("/")] = f"the folder cannot be read: {error.strerror}"
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name.casefold() in _LITTER or Path(entry.path) == without:
                continue
            name = f"{prefix}{entry.name}"
            shown = os.fsencode(name).decode("utf-8", "backslashreplace")
            if shown != name:
                refused[shown] = "the file's name is not UTF-8: rename it"
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, f"{name}/"))
            elif entry.is_symlink():
                target = Path(os.path.realpath(entry.path))
                if target.is_file() and target.is_relative_to(root):
                    files.append(name)
                else:
                    refused[name] = "the link leads to no file inside the data folder"
            elif entry.is_file():
                files.append(name)
            else:
                refused[name] = "it is no ordinary file"
    return Listing(root, sorted(files), refused)


# -- rows ------------------------------------------------------------------------------------------------------------


def any_case(path: str) -> str:
    """A key under which paths agree that differ in case or in the composition of their letters."""
    return unicodedata.normalize("NFC", path).casefold()


def base_name(path: str) -> str:
    """`any_case` of the file's name, whatever its folder."""
    return any_case(posixpath.basename(path))


def join(
    rows: pd.DataFrame, listing: Listing, table: str, keys: Sequence[Callable[[str], str]] = (any_case,)
) -> tuple[pd.DataFrame, list[Rejection]]:
    """Bring rows and files together by name.

    Arguments:
        rows: columns `file` (the path as it stands in the table) and `reason` (why the row is wrong; "" where not).
        listing: the files.
        table: what the table is called, for the reasons.
        keys: under which a row that names no file exactly may find one, in this order; a key that two files share
            finds none.

    Returns:
        The rows, index from 0, `file` as in the listing where it was found and `reason` filled in where not; and a
        line for every file that no row names.
    """
    rows = rows.reset_index(drop=True)
    written = rows["file"].fillna("").astype(str)
    path = written.str.strip().str.replace("\\", "/")
    absolute = path.str.match(r"[/~]|[A-Za-z]:")
    path = path.map(posixpath.normpath)
    outside = path.str.match(r"\.\.(/|\Z)")
    path = path.mask(absolute | outside | (path == "."), "")

    known = pd.Series([*listing.files, *listing.refused], dtype=object)
    found = pd.Series(None, index=rows.index, dtype=object)
    for key in (str, *keys):
        by_key = known.set_axis(known.map(key))
        by_key = by_key[~by_key.index.duplicated(keep=False)]
        found = found.where(found.notna(), path.map(key).map(by_key)).where(path != "", None)
    cases = [
        (absolute, "the path is absolute, and so leads out of the data folder: write it from the table's folder on"),
        (outside, "the path leads out of the data folder"),
        ((path != "") & found.isna(), "the row's file is not there"),
        (found.isin(list(listing.refused)), found.map(listing.refused)),
    ]
    files = found.where(found.notna(), written)
    reasons = with_reasons(rows["reason"], cases)
    return rows.assign(file=files, reason=reasons), _left(listing, files, f"no row of {table} names the file")


def named(listing: Listing, pattern: str, form: str) -> tuple[pd.DataFrame, list[Rejection]]:
    """The rows of a set without a table: the files whose names follow a pattern.

    Arguments:
        listing: the files.
        pattern: see `name_parts`.
        form: the pattern in words, for the reasons.

    Returns:
        Columns `file`, `reason` ("") and the groups; and a line for every other file.
    """
    files = pd.Series(listing.files, dtype=object)
    parts = name_parts(files, pattern)
    table = parts.assign(file=files, reason="")[parts.notna().any(axis=1)].reset_index(drop=True)
    return table, _left(listing, table["file"], f"the file's name is not {form}")


def name_parts(files: pd.Series, pattern: str) -> pd.DataFrame:
    """The named groups of `pattern`, which is of a whole file name in any case; nothing where a name does not follow it."""
    return files.map(posixpath.basename).str.extract(rf"\A(?:{pattern})\Z", flags=re.IGNORECASE).astype(object)


def _left(listing: Listing, used: pd.Series, reason: str) -> list[Rejection]:
    """A line for every file that is not used: why it was refused, or `reason`."""
    unused = {
        file: reason if is_picture(file) else "not a picture, by the ending of its name" for file in listing.files
    }
    taken = set(used)
    return [Rejection(file, None, why) for file, why in (listing.refused | unused).items() if file not in taken]
