"""Small trees in the real layouts of the six data sets, with their pitfalls, made of drawn faces.

Each builder writes a tree and says by hand what is to become of each of its files and rows.
"""

import itertools
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from ageflow.data.faces import Faces
from ageflow.data.prepare import source_folder

__all__ = ["TREES", "Drawn", "Tree"]


class Drawn:
    """Pictures of drawn faces, 256×256, one after the other, and again from the first."""

    def __init__(self, folder: Path) -> None:
        table = Faces.open(folder).table.drop_duplicates("identity")
        files = {gender: table.loc[table["gender"] == gender, "file"].head(8) for gender in ("female", "male")}
        root = source_folder(folder)
        self._of = {
            gender: itertools.cycle([Image.open(root / file).convert("RGB").resize((160, 160)) for file in named])
            for gender, named in files.items()
        }
        self._any = itertools.cycle(["female", "male"])

    def save(self, path: Path, gender: str | None = None, grey: bool = False) -> None:
        """Write the next face, of a gender where it matters, as a JPEG of any name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = next(self._of[gender or next(self._any)])
        (picture.convert("L") if grey else picture).save(path, "JPEG", quality=92)


@dataclass
class Tree:
    """What should come of a tree.

    Arguments:
        data_root: the folder to pass.
        files: the pictures' folder, as a part of `data_root`, in which every file that is not hidden counts.
        accepted: identity, age, gender, race of each face by file.
        rejected: (file, row, a part of the reason) of each line.
        rows: how many rows its table has; None where it has none.
        tables: files of `files` that are tables.
        ages, identities: what the set knows.
        damaged: those of `rejected` that only opening the file shows: a reader lets them pass.
    """

    data_root: Path
    files: str = ""
    accepted: dict[str, tuple] = field(default_factory=dict)
    rejected: list[tuple[str, int | None, str]] = field(default_factory=list)
    rows: int | None = None
    tables: tuple[str, ...] = ()
    ages: bool = True
    identities: bool = True
    damaged: tuple[str, ...] = ()

    def on_disk(self) -> set[str]:
        """Everything in the pictures' folder but folders, tables and what an operating system hides there."""
        found = set()
        for folder, folders, names in os.walk(self.data_root / self.files):
            folders[:] = [name for name in folders if name != "__MACOSX"]
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            for name in (*names, *links):
                if not name.startswith(".") and name != "Thumbs.db":
                    path = (Path(folder) / name).relative_to(self.data_root)
                    found.add(path.as_posix())
        return found - set(self.tables)


def morph(folder: Path, drawn: Drawn) -> Tree:
    """A CSV with a mark, subjects without their zeros, and rows that a broken export left behind."""
    root = folder / "MORPH"
    album = root / "Album2"
    secret = folder / "009999_1M40.JPG"  # beside the data folder
    drawn.save(secret)
    header = "id_num,picture_num,dob,doa,race,gender,facial_hair,age,age_diff,glasses,photo"
    lines: list[str] = []
    tree = Tree(root, "Album2", rows=0)

    def row(
        name: str, *, number: str | None = None, race: str = "B", gender: str = "M", age: str | None = None,
        photo: str | None = None, picture: bool = True, told: str = "", extra: str = "",
    ) -> None:  # fmt: skip
        subject, years = name[:6], name.rstrip("JPGjpg.")[-2:]
        if picture:
            drawn.save(album / name)
        photo = f"Album2/{name}" if photo is None else photo
        number, age = subject if number is None else number, years if age is None else age
        lines.append(f"{number},1,01/02/1950,03/04/2004,{race},{gender},,{age},0,,{photo}{extra}")
        if told:
            tree.rejected.append((f"Album2/{name}" if picture else photo, len(lines) - 1, told))
        else:
            known = {"M": "male", "F": "female"}[gender.upper()]
            tree.accepted[f"Album2/{name}"] = (subject, float(age), known, race.strip().upper() or None)

    row("009055_1M54.JPG", number="9055")
    row("009055_2M56.JPG", number="9055.0", race="W")
    row("012345_0F31.JPG", gender="F", race="I")
    row("012345_1F33.JPG", gender="f", race=" h ", photo="012345_1F33.JPG")
    row("020000_1M20.jpg", race="A", photo="Album2/020000_1M20.JPG")
    row("020001_1M21.JPG", race="O", photo=".\\Album2\\020001_1M21.JPG")
    row("020002_1M22.JPG", race="", extra=",,")
    row("020003_1M23.JPG", gender="F")  # a name that says otherwise
    row("030000_1F45.JPG", gender="F", extra=",1,2", told="13 fields, and the header 11")
    row("030001_1M46.JPG", age="n/a", told="'n/a' is not a number")
    row("030002_1M47.JPG", age="-1", told="-1 lies outside")
    row("030003_1M48.JPG", age="250", told="250 lies outside")
    row("030004_1M49.JPG", number="030005", told="not the subject")
    row("040000_1M50.JPG", picture=False, told="the row's file is not there")
    row("009999_1M40.JPG", picture=False, photo="../009999_1M40.JPG", told="leads out of the data folder")
    row("009999_2M40.JPG", picture=False, photo=str(secret), told="leads out of the data folder")
    row("040001_1M51.JPG", picture=False, photo="", told="no file is named")
    lines += ["", lines[0]]
    tree.rejected.append(("Album2/009055_1M54.JPG", len(lines) - 2, "stands in an earlier row"))
    tree.rows = len(lines) - 1
    (root / "morph_2008_nonCommercial.csv").write_bytes("\n".join([header, *lines]).encode("utf-8-sig"))

    drawn.save(album / "050000_1M33.JPG")
    tree.rejected.append(("Album2/050000_1M33.JPG", None, "no row of morph_2008_nonCommercial.csv names the file"))
    (album / "readme.txt").write_text("about")
    tree.rejected.append(("Album2/readme.txt", None, "no picture"))
    (album / "050001_1M34.JPG").symlink_to(secret)
    tree.rejected.append(("Album2/050001_1M34.JPG", None, "link leads out of the data folder"))
    (album / "050002_1M34.JPG").symlink_to("050003_1M34.JPG")
    (album / "050003_1M34.JPG").symlink_to("050002_1M34.JPG")
    (album / "again").symlink_to(album, target_is_directory=True)
    tree.rejected += [(f"Album2/05000{number}_1M34.JPG", None, "link leads to itself") for number in (2, 3)]
    tree.rejected.append(("Album2/again", None, "link to a folder"))
    for hidden in (".DS_Store", "Thumbs.db", "._009055_1M54.JPG", "__MACOSX/009055_1M54.JPG"):
        (album / hidden).parent.mkdir(exist_ok=True)
        (album / hidden).write_bytes(b"\0")
    return tree


def cacd(folder: Path, drawn: Drawn) -> Tree:
    """A .mat in another order than the files, whose names were composed, decomposed or mis-decoded on the way."""
    root = folder / "CACD"
    pictures = root / "CACD2000"
    tree = Tree(root, "CACD2000", rows=0)
    people = [
        "Aaron Johnson",
        "50 Cent",
        "Zoë Kravitz",
        "Conan O'Brien",
        "Samuel L. Jackson",
        "Chloë Moretz",
        "Al Nobody",
    ]
    names, ages, numbers = [], [], []

    def row(in_mat: str | None, on_disk: str | None, number: int, age: float, gender: str = "", told: str = "") -> None:
        if on_disk:
            drawn.save(pictures / on_disk, gender or None)
        if in_mat:
            names.append(in_mat), ages.append(age), numbers.append(number)
        if told:
            file = f"CACD2000/{on_disk}" if on_disk else in_mat
            tree.rejected.append((file, len(names) - 1 if in_mat else None, told))
        else:
            person = people[number - 1].replace(" ", "_")
            tree.accepted[f"CACD2000/{on_disk}"] = (person, age, gender, None)

    zoe = "20_Zoë_Kravitz_000{}.jpg"
    wrongly = zoe.encode().decode("gbk")
    assert wrongly == "20_Zo毛_Kravitz_000{}.jpg"
    row(zoe.format(3), unicodedata.normalize("NFD", zoe.format(3)), 3, 20, "female")
    row("53_50_Cent_0001.jpg", "53_50_Cent_0001.jpg", 2, 53, "male")
    row(zoe.format(1), wrongly.format(1), 3, 20, "female")
    row("14_Aaron_Johnson_0001.jpg", "14_Aaron_Johnson_0001.jpg", 1, 14, "male")
    row(wrongly.format(2), zoe.format(2), 3, 20, "female")
    row("33_Samuel_L._Jackson_0001.jpg", "33_Samuel_L._Jackson_0001.jpg", 5, 33, "male")
    row("40_Conan_O'Brien_0010.jpg", "40_Conan_O'Brien_0010.jpg", 4, 40, "male")
    row("15_Aaron_Johnson_0002.jpg", "15_Aaron_Johnson_0002.jpg", 1, 15, "male")
    row("52_50_Cent_0002.jpg", "52_50_Cent_0002.jpg", 2, 55, "male")  # the row is right
    row("21_Chlo?_Moretz_0001.jpg", None, 6, 21, told="the row's file is not there")
    row(None, "21_Chloë_Moretz_0001.jpg", 6, 21, told="no row of celebrity2000_meta.mat names the file")
    row("61_Al_Nobody_0001.jpg", None, 7, 61, told="the row's file is not there")
    row("16_Aaron_Johnson_0003.jpg", "16_Aaron_Johnson_0003.jpg", 1, float("nan"), told="not a number")
    row("14_Aaron_Johnson_0001.jpg", None, 1, 14, told="earlier row")
    tree.rejected[-1] = ("CACD2000/14_Aaron_Johnson_0001.jpg", *tree.rejected[-1][1:])
    row("../../14_Aaron_Johnson_0009.jpg", None, 1, 14, told="leads out of the data folder")
    tree.rows = len(names)

    def cell(values: list[str]) -> np.ndarray:
        return np.array(values, dtype=object).reshape(-1, 1)

    savemat(
        root / "celebrity2000_meta.mat",
        {
            "celebrityImageData": {
                "rank": np.ones((len(names), 1)),
                "identity": np.array(numbers, dtype=float).reshape(-1, 1),
                "name": cell(names),
                "age": np.array(ages, dtype=float).reshape(-1, 1),
            },
            "celebrityData": {"name": cell(people), "identity": np.arange(1.0, len(people) + 1).reshape(-1, 1)},
        },
    )
    return tree


def fgnet(folder: Path, drawn: Drawn) -> Tree:
    """Upper and lower case, letters behind the age, grey pictures, landmarks beside them."""
    root = folder / "FGNET"
    tree = Tree(root, "images")
    good = ["001A02.JPG", "001a05.jpg", "001A43a.JPG", "001A43b.JPG", "002A00.JPG", "078a69.jpg", "082A18.jpeg"]
    for place, name in enumerate(good):
        drawn.save(root / "images" / name, grey=place % 2 == 0)
        tree.accepted[f"images/{name}"] = (name[:3], float(name[4:6]), None, None)
    for name in ("01A02.JPG", "001A2.JPG", "001B02.JPG", "001A02 (copy).JPG"):
        drawn.save(root / "images" / name)
        tree.rejected.append((f"images/{name}", None, "the file's name is not a subject's number"))
    (root / "images" / "003A10.JPG").write_bytes(b"")
    tree.rejected.append(("images/003A10.JPG", 5, "does not open as a picture"))  # the reader's row, in sorted order
    tree.damaged = ("images/003A10.JPG",)
    (root / "images" / "Thumbs.db").write_bytes(b"\0")
    (root / "points").mkdir()
    (root / "points" / "001a02.pts").write_text("version: 1\nn_points: 68\n{\n}\n")
    return tree


def celeba(folder: Path, drawn: Drawn) -> Tree:
    """Subsets of the tables, with the whole's count, runs of spaces, and pictures that only some of them name."""
    root = folder / "celeba"
    tree = Tree(root, "img_align_celeba", ages=False)
    attributes, identities, halves = [], [], []

    def picture(
        name: str, male: str | None, identity: str | None, half: str | None, told: str = "", there: bool = True
    ):
        if there:
            drawn.save(root / "img_align_celeba" / name)
        if male is not None:
            row = len(attributes)
            attributes.append(f"{name}   -1 {male:>2}  1" if male else f"{name}  -1")
        else:
            row = None
        if identity is not None:
            identities.append(f"{name} {identity}")
        if half is not None:
            halves.append(f"{name} {half}")
        if told:
            tree.rejected.append((f"img_align_celeba/{name}" if there else name, row, told))
        else:
            gender = {"1": "male", "-1": "female", None: None}[male]
            tree.accepted[f"img_align_celeba/{name}"] = (identity or name, None, gender, None)

    picture("000001.jpg", "-1", "2880", "0")
    picture("000002.jpg", "1", "2937", "0")
    picture("000003.jpg", "1", "2937", "0")
    picture("000004.jpg", "1", "17", "1")
    picture("000005.jpg", "-1", "18", "2")
    picture("000006.jpg", "-1", "2880", "2")  # of somebody in the training half
    picture("000007.jpg", "-1", None, "2")
    picture("000008.jpg", "-1", "19", None)
    picture("000009.jpg", "1", "20", "0", told="the row's file is not there", there=False)
    picture("000010.jpg", "", "21", "0", told="the row of list_attr_celeba.txt has 2 fields, not 4")
    picture("000011.jpg", "0", "22", "0", told="Male is neither 1 nor -1")
    picture("000012.jpg", "1", "23", "7", told="the partition is none of 0, 1 and 2")
    picture("000013.jpg", "1", "24 25", "0", told="the row of identity_CelebA.txt has 3 fields, not 2")
    picture("000014.jpg", None, None, None, told="no row of list_attr_celeba.txt or identity_CelebA.txt")
    picture("../000015.jpg", "1", "26", "0", told="leads out of the data folder", there=False)
    picture("000016.jpg", None, "27", "2")  # only the identities and the partition name it
    picture("000017.jpg", None, "28", "2", told="the row's file is not there", there=False)
    tree.rejected[-1] = ("000017.jpg", len(attributes) + 1, tree.rejected[-1][2])  # after the only other such row
    tree.rows = len(attributes) + 2
    header = "5_o_Clock_Shadow Male Young"
    (root / "list_attr_celeba.txt").write_text("\n".join(["202599", header, *attributes]) + "\n")
    (root / "identity_CelebA.txt").write_text("\r\n".join(identities) + "\r\n")
    (root / "list_eval_partition.txt").write_text("\n".join(halves))
    return tree


def utkface(folder: Path, drawn: Drawn) -> Tree:
    """Both releases' endings, and the malformed names of the real one."""
    root = folder / "data"
    tree = Tree(root, "UTKFace", identities=False)
    races = ("white", "black", "asian", "indian", "other")
    for race, name in enumerate(races):
        gender, age = race % 2, 20 * race
        file = f"{age}_{gender}_{race}_2017011617452512{race}.jpg{'.chip.jpg' if race % 2 else ''}"
        drawn.save(root / "UTKFace" / file)
        tree.accepted[f"UTKFace/{file}"] = (file, float(age), ("male", "female")[gender], name)
    harmless = "55_0_0_20170116232725357jpg.chip.jpg"
    drawn.save(root / "UTKFace" / harmless)
    tree.accepted[f"UTKFace/{harmless}"] = (harmless, 55.0, "male", "white")
    for name in (
        "39_1_20170116174525125.jpg.chip.jpg",
        "61_1_20170109142408075.jpg",
        "61_3_0_20170109150557335.jpg",
        "40_0_5_20170109150557336.jpg",
        "_0_0_20170109150557337.jpg",
        "holiday.jpg",
    ):
        drawn.save(root / "UTKFace" / name)
        tree.rejected.append((f"UTKFace/{name}", None, "the file's name is not age_gender_race_time"))
    for place, (name, told) in enumerate((("-1", "-1 lies outside"), ("250", "250 lies outside"))):
        file = f"{name}_0_0_2017010915055733{place}.jpg"
        drawn.save(root / "UTKFace" / file)
        # A set without a table has no rows but the reader's: the names that could be read, sorted.
        tree.rejected.append((f"UTKFace/{file}", 0 if name == "-1" else 3, told))
    return tree


def folder(folder: Path, drawn: Drawn) -> Tree:
    """Semicolons, Windows' encoding, subfolders, and the pitfalls of tables written by hand."""
    root = folder / "mine"
    (folder / "secret.jpg").parent.mkdir(parents=True, exist_ok=True)
    drawn.save(folder / "secret.jpg")
    tree = Tree(root, "", tables=("faces.csv",))
    lines = []

    def row(
        file: str, *fields: str, there: bool = True, told: str = "", named: str | None = None, face: tuple = ()
    ) -> None:
        if there:
            drawn.save(root / file)
        lines.append(";".join([named or file, *fields]))
        if told:
            tree.rejected.append((file, len(lines) - 1, told))
        else:
            tree.accepted[file] = face

    row("a/anna 1.jpg", "Anna", "34", "female", "", face=("Anna", 34.0, "female", None))
    row("a/anna 2.jpg", "Anna", "3", "F", "n/a", face=("Anna", 3.0, "female", None))
    row("b/jörg.jpg", "Jörg", "0", "m", "white", face=("Jörg", 0.0, "male", "white"))
    row("b/lower.jpg", "007", "41.5", "Man", "", named="B\\LOWER.JPG", face=("007", 41.5, "male", None))
    row("nobody.jpg", "", "60", "unknown", "", face=("nobody.jpg", 60.0, None, None))
    row("b/x.jpg", "x", "30", "diverse", "", told="'diverse' is neither of female, male")
    row("b/y.jpg", "y", "", "", "", told="is not a number")
    row("b/z.jpg", "z", "-1", "", "", told="-1 lies outside")
    row("b/old.jpg", "z", "250", "", "", told="250 lies outside")
    row("b/short.jpg", "z", "25", told="the row has 3 fields, and the header 5")
    row("b/long.jpg", "z", "25", "m", "", "more", told="the row has 6 fields, and the header 5")
    row("gone.jpg", "z", "25", "m", "", there=False, told="the row's file is not there")
    row("../secret.jpg", "z", "25", "m", "", there=False, told="leads out of the data folder")
    row(str(folder / "secret.jpg"), "z", "25", "m", "", there=False, told="leads out of the data folder")
    lines.append(";;;;")  # a spreadsheet's empty row is none
    lines.append("a/anna 1.jpg;Anna;35;female;")
    tree.rejected.append(("a/anna 1.jpg", len(lines) - 2, "stands in an earlier row"))
    (root / "b/cut.jpg").write_bytes((root / "b/x.jpg").read_bytes()[:2000])
    lines.append("b/cut.jpg;Cut;30;m;")
    tree.rejected.append(("b/cut.jpg", len(lines) - 2, "does not open as a picture"))
    tree.damaged = ("b/cut.jpg",)
    tree.rows = len(lines) - 1
    header = "File;Identity;Age;Gender;Race"
    (root / "faces.csv").write_bytes("\r\n".join([header, *lines]).encode("cp1252"))

    drawn.save(root / "a/forgotten.jpg")
    tree.rejected.append(("a/forgotten.jpg", None, "no row of faces.csv names the file"))
    (root / "notes.md").write_text("about")
    tree.rejected.append(("notes.md", None, "no picture"))
    os.mkfifo(root / "b/pipe.jpg")
    tree.rejected.append(("b/pipe.jpg", None, "no ordinary file"))
    (root / ".DS_Store").write_bytes(b"\0")
    return tree


TREES: dict[str, Callable[[Path, Drawn], Tree]] = {
    builder.__name__: builder for builder in (morph, cacd, fgnet, celeba, utkface, folder)
}
