"""``python -m ageflow.age``: the faces of your own photographs at other ages.

python -m ageflow.age me.jpg album --to 30 50 65 --out aged
python -m ageflow.age album --to 65 --out aged --paste-back --faces largest --method calibrated

Into ``--out`` it writes

* ``faces.csv``: a row for every face and target age, and one with its `reason` for every file without a face; a face
  that does not go to a target has the `reason` in that row;
* ``faces/<photo>/``: ``face1.png``, the aligned face, ``face1_at_30.png`` …; with ``--paste-back`` also
  ``photo_at_30.png``, the whole photograph with all its faces aged, upright, 8 bits RGB;
* ``sheets/``: contact sheets of them all;
* ``manifest.json``: which photographs these are, and the run and settings that all were made with.

One photograph at a time is in memory. Stopped, the same command continues: a photograph whose content is the same is
not aged again. Photographs and ages may be added, and nothing there is lost: a call without some of the photographs,
or with other settings, is refused.
"""

import argparse
import errno
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from ageflow.config import ParameterError, Slider
from ageflow.data.files import list_files
from ageflow.data.pictures import open_image, read_picture
from ageflow.parameters import settings as settings_of
from ageflow.run import Manifest, atomic_file, digest, sole_writer, write_atomically
from ageflow.work import progress_bar

if TYPE_CHECKING:
    from ageflow.slider.explorer import Explorer

# pandas and torch are imported only when the command is known to be right: --help and a misspelt name do not wait for them.
_COLUMNS = ("file", "face", "target", "age_before", "age_after", "cosine", "output", "pasted", "reason")
_HEADER = ",".join(_COLUMNS).encode()
_TABLE, _FACES, _SHEETS = "faces.csv", "faces", "sheets"
_THUMBNAIL, _LINE = 64, 78  # pixels: the side of a thumbnail; it and its caption
_ACROSS, _DOWN = 15, 12  # thumbnails to a contact sheet


@dataclass(frozen=True)
class Photo:
    """A file that was given, or found in a folder that was given.

    Arguments:
        file: its path, as the table names it.
        root, name: the folder given, and the path below it.
        place: the folder of its results below ``faces/``; no other photo's.
        reason: why it is not read; "": it is.
    """

    file: str
    root: Path
    name: str
    place: str
    reason: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code.

    0; 1 where no face was found at all, the run lacks a part or the disk is full; 2 for wrong parameters; 130 where
    Ctrl-C stopped it.
    """
    given = _parser().parse_args(arguments)
    names = ("dataset", "run", "runs_root", "method", "strength", "device", "embedder")
    try:
        settings = settings_of(Slider.step, {name: getattr(given, name) for name in names})
        photos = find_photos(given.photos, given.out)
        return age_photos(settings, photos, given.out, given.to, given.faces == "largest", given.paste_back)
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        return 130
    except Exception as error:
        if not (type(error).__module__.startswith("ageflow.") or isinstance(error, OSError)):
            raise  # each of our own errors says what to do; this is a fault of the kit
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ParameterError) else 1


def find_photos(given: Sequence[Path], out: Path) -> list[Photo]:
    """Every file given and every file in the folders given, once; none of what this or an earlier call wrote.

    Raises:
        ParameterError: a path that is not there, folders without files, or an `out` that is a file, a folder of
            photos, or holds a table of something else or faces of other photos.
    """
    own = Path(os.path.realpath(out))
    if own.exists() and not own.is_dir():
        raise ParameterError(f"--out {out} is a file: name a folder, which need not exist")
    if (before := Manifest.read(own)) is None and (own / _TABLE).exists():
        raise ParameterError(f"--out {out} holds another {_TABLE}, which would be lost: name another folder")
    places, roots = (before.details.get(name, {}) if before else {} for name in ("photos", "roots"))
    found: dict[str, Photo] = {}
    for path in given:
        if not os.path.lexists(path):
            raise ParameterError(f"{path}: there is no such file or folder; expected photos, or folders of them")
        root = Path(os.path.realpath(path))
        if root == own or any(root.is_relative_to(own / part) for part in (_FACES, _SHEETS)):
            raise ParameterError(f"--out {out}: what is written there would be read as photos: name another folder")
        if root.is_dir():
            listing = list_files(root, own)
            files = dict.fromkeys(listing.files, "") | listing.refused
            for table in (name for name in listing.files if name.endswith(f"/{_TABLE}")):
                if os.access(root / table, os.R_OK) and (root / table).read_bytes().startswith(_HEADER):
                    earlier = table.removesuffix(_TABLE)
                    print(f"{path / earlier} is left out: an earlier call wrote it", file=sys.stderr)
                    files = {name: reason for name, reason in files.items() if not name.startswith(earlier)}
        else:
            root, files = path.parent.resolve(), {path.name: ""}
        for name, reason in sorted(files.items()):
            if (real := os.path.realpath(root / name)) not in found:
                shown, place = (os.fsencode(text).decode("utf-8", "backslashreplace") for text in (path, name))
                place = places.get(real, place)
                # Two folders may hold the same name, or one a file and the other a folder of that name.
                while real not in places and roots.setdefault(place.split("/")[0], str(root)) != str(root):
                    place = f"~{place}"
                file = str(Path(shown, name)) if path.is_dir() else shown
                found[real] = Photo(file, root, name, place, reason)
    if not found:
        raise ParameterError(f"{', '.join(map(str, given))}: no file is in there; expected photos")
    if lost := [real for real, place in places.items() if real not in found and (own / _FACES / place).exists()]:
        raise ParameterError(f"--out {out} holds faces of {lost[0]}, too: give all its photos, or name another folder")
    return list(found.values())


def age_photos(
    settings: Slider, photos: Sequence[Photo], out: Path, ages: Sequence[float], largest: bool, paste_back: bool
) -> int:
    """Age the photos and write everything; returns 0, or 1 where no face was found.

    Arguments:
        settings: run, method, strength, device and embedder.
        photos: of `find_photos`.
        out: folder, made if need be.
        ages: the targets, years; those of earlier calls with the same `out` are made of all photos, too.
        largest: of each photo the largest face alone.
        paste_back: also write the photographs with their faces aged; once written, they are by every call.

    Raises:
        ParameterError: an age that the run's age groups do not reach, or an `out` made with other settings.
        MissingArtefactError, CheckpointError, EmbedderError: what the run lacks, before the first photo.
        FolderInUseError: another process writes there.
        OSError: the disk is full, or `out` cannot be written.
    """
    import pandas as pd

    from ageflow.slider.explorer import Explorer

    before = Manifest.read(out)
    ages = [*dict.fromkeys([*(before.details["ages"] if before else ()), *ages])]
    explorer = Explorer(settings)
    explorer.check_ages(ages)
    chosen = {"method": settings.method, "strength": settings.strength, "largest": largest}
    details = {"photos": {os.path.realpath(photo.root / photo.name): photo.place for photo in photos}, "ages": ages}
    paste_back |= bool(before and before.details["paste_back"])  # or the pasted photographs would be lost
    details |= {"roots": {photo.place.split("/")[0]: str(photo.root) for photo in photos}, "paste_back": paste_back}
    made_with = Manifest(explorer.prepare(), chosen, details=details)
    if before and (changes := before.changes(made_with.inputs, chosen)):
        raise ParameterError(f"--out {out} was made with other settings ({changes}): name another folder")
    ager = _Ager(explorer, out, ages, largest, paste_back, digest([made_with.inputs, chosen, ages, paste_back]))
    with sole_writer(out / _TABLE):
        made_with.write(out)
        if not (out / _TABLE).exists():  # by which a later call knows this folder, stopped or not
            write_atomically(out / _TABLE, _HEADER + b"\r\n")
        rows = []
        for photo in progress_bar(photos, unit="photo", title="ageing"):
            rows += [{"file": photo.file} | row for row in ager.rows(photo)]
        table = pd.DataFrame(rows, columns=[*_COLUMNS], dtype=object)
        write_atomically(out / _TABLE, table.to_csv(index=False, lineterminator="\r\n").encode())
    _write_sheets(out, [row for row in rows if "face" in row], ages)
    faces = {(row["file"], row["face"]) for row in rows if "output" in row}
    done, failed = len(dict(faces)), sum("face" in row and "reason" in row for row in rows)
    left = f"{len(photos) - done} files without" + f", {failed} times a face did not go to its target" * bool(failed)
    print(f"{len(faces)} faces of {done} photos, {left}: {out / _TABLE} names them all")
    return 0 if faces else 1


@dataclass(frozen=True)
class _Ager:
    """Ages the faces of one photo after the other; arguments as of `age_photos`."""

    explorer: "Explorer"
    out: Path
    ages: list[float]
    largest: bool
    paste_back: bool
    made_with: str

    def rows(self, photo: Photo) -> list[dict[str, Any]]:
        """The table's rows of a photo, without its name: one a face and age, or one with the reason why there is none."""
        if photo.reason:
            return [{"reason": photo.reason}]
        kept = self.out / _FACES / photo.place / "rows.json"
        try:
            content = read_picture(photo.root, photo.name)
            key = digest([digest(content), self.made_with])
            if (rows := self._kept(kept, key)) is None:
                rows = self._aged(content, f"{_FACES}/{photo.place}")
                write_atomically(kept, json.dumps({"key": key, "rows": rows}).encode())
            return rows
        except Exception as error:  # whatever is wrong with one photo does not stop the rest
            return [{"reason": _reason(error)}]

    def _kept(self, kept: Path, key: str) -> list[dict[str, Any]] | None:
        """What was made of the same photo before; None: nothing, not all, or of other settings."""
        try:
            before, kinds = json.loads(kept.read_bytes()), ["before", "output", *["pasted"] * self.paste_back]
            there = all((self.out / row[kind]).is_file() for row in before["rows"] for kind in kinds)
            return before["rows"] if before["key"] == key and there else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _aged(self, content: bytes, place: str) -> list[dict[str, Any]]:
        from ageflow.slider.explorer import View

        explorer, of = self.explorer, self.explorer.settings
        picture = open_image(content)
        faces = [*enumerate(explorer.portraits_in(picture), 1)]
        if self.largest:
            faces = [max(faces, key=lambda numbered: abs(numbered[1].similarity[0]))]
        for old in (self.out / place).glob("*.png"):  # of what the file held before
            old.unlink()
        for number, face in faces:
            _save(_picture(face.image), self.out / place / f"face{number}.png")
        rows = []
        for age in self.ages:
            pasted = None
            for number, face in faces:
                row = {"face": number, "target": age, "before": f"{place}/face{number}.png"}
                rows.append(row | {"age_before": round(face.age, 1)})
                try:
                    image = explorer.at_age(View(face, age, of.method, of.strength))
                    after, cosine = explorer.estimate(image)[0], explorer.cosines(face, image[None])[0]
                    _save(_picture(image), self.out / (output := f"{place}/face{number}_at_{age:g}.png"))
                    rows[-1] |= {"output": output, "age_after": round(after, 1), "cosine": round(cosine, 4)}
                    if self.paste_back:
                        explorer.paste(pasted := pasted or picture.copy(), face, image)
                        rows[-1]["pasted"] = f"{place}/photo_at_{age:g}.png"
                except Exception as error:  # another face, or another target, may be possible
                    rows[-1]["reason"] = _reason(error)
            if pasted:
                _save(pasted, self.out / place / f"photo_at_{age:g}.png")
        return sorted(rows, key=lambda row: row["face"])


def _reason(error: Exception) -> str:
    """Why there is no face, in words; a full disk is raised."""
    if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
        raise error
    return str(error) if isinstance(error, ValueError | FloatingPointError) else f"{type(error).__name__}: {error}"


def _write_sheets(out: Path, rows: Sequence[dict[str, Any]], ages: Sequence[float]) -> None:
    """Contact sheets of the faces as they were and at every age, by the table's rows; empty where that failed."""
    thumbnails = []  # file and caption
    for row in rows:
        if row["target"] == ages[0]:
            thumbnails.append((row["before"], f"{row['face']} {Path(row['file']).stem[-9:]}"))
        thumbnails.append((row.get("output"), f"at {row['target']:g}"))
    across = (1 + len(ages)) * max(1, _ACROSS // (1 + len(ages)))
    for old in (out / _SHEETS).glob("sheet_[0-9][0-9][0-9].png"):  # of a call with more faces
        old.unlink()
    for number, start in enumerate(range(0, len(thumbnails), across * _DOWN), 1):
        shown = thumbnails[start : start + across * _DOWN]
        sheet = Image.new("RGB", (_THUMBNAIL * across, _LINE * math.ceil(len(shown) / across)), "white")
        for place, (file, caption) in enumerate(shown):
            x, y = place % across * _THUMBNAIL, place // across * _LINE
            if file:
                with Image.open(out / file) as face:
                    sheet.paste(face.resize((_THUMBNAIL, _THUMBNAIL)), (x, y))
            latin = caption.encode("latin-1", "replace").decode("latin-1")  # Pillow's own font has no others
            ImageDraw.Draw(sheet).text((x, y + _THUMBNAIL), latin, "black")
        _save(sheet, out / _SHEETS / f"sheet_{number:03d}.png")


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_file(path) as file:
        picture.save(file, "PNG", compress_level=1)  # the default takes three times as long, for a tenth fewer bytes


def _picture(face: Any) -> Image.Image:
    """A face, uint8 tensor [3, S, S], as a picture."""
    return Image.fromarray(face.permute(1, 2, 0).contiguous().numpy())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ageflow.age", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("photos", nargs="+", type=Path, metavar="PHOTOS", help="pictures, or folders, which are searched with theirs")
    add("--to", nargs="+", type=float, required=True, metavar="AGE", help="years; with the paper's groups 20 to 70")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where everything is written")
    add("--faces", choices=("all", "largest"), default="all", help="of each photo; left out: all")
    add("--paste-back", action="store_true", help="also write the whole photographs with their faces aged")
    add("--dataset", help="of the run; left out: demo")
    add("--run", help="name of the run; left out: demo, or paper for another data set")
    add("--runs-root", help="folder of all runs; left out: the project's runs/")
    add("--method", help="one of the kit's or a baseline, or module:Class, one's own; left out: ageflow")
    add("--strength", type=float, help="0 moves a face not at all, 1, the default, as the method does, at most 2")
    add("--device", help="auto, cpu, cuda, cuda:1; left out: auto")
    add("--embedder", help="of the cosine: dlib, or the path of an ArcFace ONNX file; left out: dlib")
    return parser


if __name__ == "__main__":
    sys.exit(main())
