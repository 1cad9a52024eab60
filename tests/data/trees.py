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

GENDERS = {"M": "male", "F": "female", "1": "male", "-1": "female"}


class Drawn:
    """Pictures of drawn faces, 160×160, one after the other, and again from the first."""

    def __init__(self, folder: Path) -> None:
        table, root = Faces.open(folder).table.drop_duplicates("identity"), source_folder(folder)
        pictures = {
            gender: [Image.open(root / file).convert("RGB").resize((160, 160)) for file in files.head(8)]
            for gender, files in table.groupby("gender")["file"]
        }
        self._faces = {gender: itertools.cycle(faces) for gender, faces in pictures.items()}
        self._any = itertools.cycle(["female", "male"])

    def save(self, path: Path, gender: str = "", mode: str = "RGB") -> None:
        """Write the next face, of a gender where it matters, as a JPEG of any name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        next(self._faces[gender or next(self._any)]).convert(mode).save(path, "JPEG", quality=92)


@dataclass
class Tree:
    """What should come of a tree.

    Arguments:
        data_root: the folder to pass.
        folder: the pictures' folder in it, in which every file that is not hidden counts.
        accepted: identity, age, gender, race of each face by file.
        rejected: a part of the reason by file and row.
        rows: how many rows its table has; None where it has none.
        tables: files of the pictures' folder that are tables.
        note: a part of the data card's notes.
        ages: whether the set knows them.
    """

    data_root: Path
    folder: str = ""
    accepted: dict[str, tuple] = field(default_factory=dict)
    rejected: dict[tuple[str, int | None], str] = field(default_factory=dict)
    rows: int | None = None
    tables: tuple[str, ...] = ()
    note: str = ""
    ages: bool = True

    @property
    def pictures(self) -> Path:
        return self.data_root / self.folder

    def expect(self, file: str, labels: tuple, reason: str = "", row: int | None = None) -> None:
        if reason:
            self.rejected[file, row] = reason
        else:
            identity, age, *others = labels
            self.accepted[file] = (identity, None if age is None else float(age), *others)

    def on_disk(self) -> set[str]:
        """Everything in the pictures' folder but folders, tables and what an operating system hides there."""
        found = [path for path in self.pictures.rglob("*") if path.is_symlink() or not path.is_dir()]
        names = {path.relative_to(self.pictures).as_posix() for path in found}
        hidden = {name for name in names if Path(name).name[0] == "." or "Thumbs.db" in name or "__MACOSX" in name}
        return names - hidden - {*self.tables}


def morph(folder: Path, drawn: Drawn) -> Tree:
    """A CSV with a mark, subjects without their zeros, and rows that a broken export left behind."""
    note = "In 1 rows the gender is not the one in the file's name; the row's is taken."
    tree = Tree(folder / "MORPH", "Album2", note=note)
    secret = folder / "009999_1M40.JPG"  # beside the data folder
    drawn.save(secret)
    lines = ["id_num,picture_num,dob,doa,race,gender,facial_hair,age,age_diff,glasses,photo"]

    def row(name: str, reason: str = "", picture: bool = True, extra: str = "", **fields: str) -> None:
        if picture:
            drawn.save(tree.pictures / name)
        told = {"id_num": name[:6], "race": "B", "gender": "M", "age": name[-6:-4], "photo": f"Album2/{name}"} | fields
        lines.append("{id_num},1,01/02/1950,03/04/2004,{race},{gender},,{age},0,,{photo}".format(**told) + extra)
        labels = name[:6], told["age"], GENDERS[told["gender"].upper()], told["race"].strip().upper() or None
        tree.expect(name if picture else told["photo"], labels, reason, len(lines) - 2)

    row("009055_1M54.JPG", id_num="9055")
    row("009055_2M56.JPG", id_num="9055.0", race="W")
    row("012345_0F31.JPG", gender="F", race="I")
    row("012345_1F33.JPG", gender="f", race=" h ", photo="012345_1F33.JPG")
    row("020000_1M20.jpg", race="A", photo="Album2/020000_1M20.JPG")
    row("020001_1M21.JPG", race="O", photo=".\\Album2\\020001_1M21.JPG")
    row("020002_1M22.JPG", race="", extra=",,")
    row("020003_1M23.JPG", gender="F")  # a name that says otherwise
    row("030000_1F45.JPG", "has 13 fields, and the header 11", gender="F", extra=",1,2")
    row("030001_1M46.JPG", "'n/a' is not a number", age="n/a")
    row("030002_1M47.JPG", "-1 lies outside", age="-1")
    row("030003_1M48.JPG", "250 lies outside", age="250")
    row("030004_1M49.JPG", "not the subject", id_num="030005")
    row("040000_1M50.JPG", "the row's file is not there", picture=False)
    row("009999_1M40.JPG", "leads out of the data folder", picture=False, photo="../009999_1M40.JPG")
    row("009999_2M40.JPG", "leads out of the data folder", picture=False, photo=str(secret))
    row("040001_1M51.JPG", "no file is named", picture=False, photo="")
    tree.rejected["009055_1M54.JPG", len(lines) - 1] = "an earlier row names the same file"
    tree.rows = len(lines)
    (tree.data_root / "morph_2008_nonCommercial.csv").write_bytes("\n".join([*lines, "", lines[1]]).encode("utf-8-sig"))

    drawn.save(tree.pictures / "050000_1M33.JPG")
    (tree.pictures / "readme.txt").write_text("about")
    (tree.pictures / "050001_1M34.JPG").symlink_to(secret)
    (tree.pictures / "050002_1M34.JPG").symlink_to("050002_1M34.JPG")
    (tree.pictures / "again").symlink_to(tree.pictures, target_is_directory=True)
    tree.rejected |= {
        ("050000_1M33.JPG", None): "no row of morph_2008_nonCommercial.csv names the file",
        ("readme.txt", None): "not a picture",
        ("050001_1M34.JPG", None): "no ordinary file inside",
        ("050002_1M34.JPG", None): "no ordinary file inside",
        ("again", None): "no ordinary file inside",
    }
    (tree.pictures / "__MACOSX").mkdir()
    for hidden in (".DS_Store", "Thumbs.db", "._009055_1M54.JPG", "__MACOSX/009055_1M54.JPG"):
        (tree.pictures / hidden).write_bytes(b"\0")
    return tree


def cacd(folder: Path, drawn: Drawn) -> Tree:
    """A .mat in another order than the files, whose names were composed, decomposed or mis-decoded on the way."""
    tree = Tree(folder / "CACD", "CACD2000")
    people = ["Aaron Johnson", "50 Cent", "Zoë Kravitz", "Conan O'Brien", "Samuel L. Jackson", "Al Nobody"]
    rows: list[tuple[str, float, int]] = []

    def row(in_mat: str, on_disk: str, number: int, age: float, gender: str = "", reason: str = "") -> None:
        if on_disk:
            drawn.save(tree.pictures / on_disk, gender)
        if in_mat:
            rows.append((in_mat, age, number))
        labels = people[number - 1].replace(" ", "_"), age, gender, None
        tree.expect(on_disk or in_mat, labels, reason, len(rows) - 1 if in_mat else None)

    def same(name: str, *labels) -> None:
        row(name, name, *labels)

    zoe = "20_Zoë_Kravitz_000{}.jpg"
    wrongly = zoe.encode().decode("gbk")
    assert wrongly == "20_Zo毛_Kravitz_000{}.jpg"
    row(zoe.format(3), unicodedata.normalize("NFD", zoe.format(3)), 3, 20, "female")
    same("53_50_Cent_0001.jpg", 2, 53, "male")
    row(zoe.format(1), wrongly.format(1), 3, 20, "female")
    same("14_Aaron_Johnson_0001.jpg", 1, 14, "male")
    row(wrongly.format(2), zoe.format(2), 3, 20, "female")
    same("33_Samuel_L._Jackson_0001.jpg", 5, 33, "male")
    same("40_Conan_O'Brien_0010.jpg", 4, 40, "male")
    same("15_Aaron_Johnson_0002.jpg", 1, 15, "male")
    same("52_50_Cent_0002.jpg", 2, 55, "male")  # the row is right
    row("21_Chlo?_Moretz_0001.jpg", "", 6, 21, reason="the row's file is not there")
    row("", "21_Chloë_Moretz_0001.jpg", 6, 21, reason="no row of celebrity2000_meta.mat names the file")
    row("61_Al_Nobody_0001.jpg", "", 6, 61, reason="the row's file is not there")
    same("16_Aaron_Johnson_0003.jpg", 1, float("nan"), "", "not a number")
    row("14_Aaron_Johnson_0001.jpg", "", 1, 14, reason="earlier row")
    row("../../14_Aaron_Johnson_0009.jpg", "", 1, 14, reason="leads out of the data folder")
    tree.rows = len(rows)

    def column(values, dtype=float) -> np.ndarray:
        return np.array(list(values), dtype=dtype).reshape(-1, 1)

    names, ages, numbers = zip(*rows, strict=True)
    images = {"rank": column(numbers), "identity": column(numbers), "name": column(names, object), "age": column(ages)}
    celebrities = {"name": column(people, object), "identity": column(range(1, len(people) + 1))}
    savemat(tree.data_root / "celebrity2000_meta.mat", {"celebrityImageData": images, "celebrityData": celebrities})
    return tree


def fgnet(folder: Path, drawn: Drawn) -> Tree:
    """Upper and lower case, letters behind the age, grey pictures, landmarks beside them."""
    tree = Tree(folder / "FGNET", "images")
    for name in ("001A02.JPG", "001a05.jpg", "001A43a.JPG", "001A43b.JPG", "002A00.JPG", "078a69.jpg", "082A18.jpeg"):
        drawn.save(tree.pictures / name, mode="L" if "A" in name else "RGB")
        tree.expect(name, (name[:3], name[4:6], None, None))
    for name in ("01A02.JPG", "001A2.JPG", "001B02.JPG", "001A02 (copy).JPG"):
        drawn.save(tree.pictures / name)
        tree.expect(name, (), "the file's name is not a subject's number")
    (tree.pictures / "003A10.JPG").write_bytes(b"")
    tree.expect("003A10.JPG", (), "does not open as a picture", row=5)  # the reader's row, in sorted order
    (tree.data_root / "points").mkdir()
    (tree.data_root / "points" / "001a02.pts").write_text("version: 1\nn_points: 68\n{\n}\n")
    return tree


def celeba(folder: Path, drawn: Drawn) -> Tree:
    """Subsets of the tables, with the whole's count, runs of spaces, and pictures that only some of them name."""
    tree = Tree(folder / "celeba", "img_align_celeba", ages=False, rows=0)
    attributes, identities, halves = ["202599", "5_o_Clock_Shadow Male Young"], [], []

    def picture(name: str, male: str | None, identity: str, half: str, reason: str = "", there: bool = True) -> None:
        if there:
            drawn.save(tree.pictures / name)
        if male is not None:
            attributes.append(f"{name}   -1 {male:>2}  1" if male else f"{name}  -1")
        identities.extend([f"{name} {identity}"] if identity else [])
        halves.extend([f"{name} {half}"] if half else [])
        in_table = male is not None or identity
        tree.expect(name, (identity or name, None, GENDERS.get(male), None), reason, tree.rows if in_table else None)
        tree.rows += bool(in_table)

    picture("000001.jpg", "-1", "2880", "0")
    picture("000002.jpg", "1", "2937", "0")
    picture("000003.jpg", "1", "2937", "0")
    picture("000004.jpg", "1", "17", "1")
    picture("000005.jpg", "-1", "18", "2")
    picture("000006.jpg", "-1", "2880", "2")  # of somebody in the training half
    picture("000007.jpg", "-1", "", "2")
    picture("000008.jpg", "-1", "19", "")
    picture("000009.jpg", "1", "20", "0", "the row's file is not there", there=False)
    picture("000010.jpg", "", "21", "0", "the row of list_attr_celeba.txt has 2 fields, and the header 4")
    picture("000011.jpg", "0", "22", "0", "male is none of 1, -1")
    picture("000012.jpg", "1", "23", "7", "partition is none of 0, 1, 2")
    picture("000013.jpg", "1", "24 25", "0", "the row of identity_CelebA.txt has 3 fields, and the header 2")
    picture("000018.jpg", "1", "29\n000018.jpg 30", "0", "several rows of identity_CelebA.txt name the file")
    picture("../000015.jpg", "1", "26", "0", "leads out of the data folder", there=False)
    picture("000014.jpg", None, "", "", "no row of list_attr_celeba.txt or identity_CelebA.txt")
    picture("000016.jpg", None, "27", "2")  # only the identities and the partition name it
    picture("000017.jpg", None, "28", "2", "the row's file is not there", there=False)
    (tree.data_root / "list_attr_celeba.txt").write_text("\n".join(attributes) + "\n")
    (tree.data_root / "identity_CelebA.txt").write_bytes("\r\n".join(identities).encode())
    (tree.data_root / "list_eval_partition.txt").write_text("\n".join(halves))
    return tree


def utkface(folder: Path, drawn: Drawn) -> Tree:
    """Both releases' endings, and the malformed names of the real one."""
    tree = Tree(folder / "data", "UTKFace")

    def picture(file: str, *labels, reason: str = "", row: int | None = None) -> None:
        drawn.save(tree.pictures / file)
        tree.expect(file, (file, *labels), reason, row)

    picture("0_0_0_20170116174525120.jpg", 0.0, "male", "white")
    picture("20_1_1_20170116174525121.jpg.chip.jpg", 20.0, "female", "black")
    picture("40_0_2_20170116174525122.jpg", 40.0, "male", "asian")
    picture("60_1_3_20170116174525123.jpg.chip.jpg", 60.0, "female", "indian")
    picture("80_0_4_20170116174525124.jpg", 80.0, "male", "other")
    picture("55_0_0_20170116232725357jpg.chip.jpg", 55.0, "male", "white")
    for malformed in ("39_1_20170116174525125.jpg.chip.jpg", "61_1_20170109142408075.jpg", "holiday.jpg"):
        picture(malformed, reason="the file's name is not age_gender_race_time")
    for malformed in ("61_3_0_20170109150557335.jpg", "40_0_5_20170109150557336.jpg", "_0_0_20170109150557337.jpg"):
        picture(malformed, reason="the file's name is not age_gender_race_time")
    # A set without a table has no rows but the reader's: the names that could be read, sorted.
    picture("-1_0_0_20170109150557330.jpg", reason="-1 lies outside", row=0)
    picture("250_0_0_20170109150557331.jpg", reason="250 lies outside", row=3)
    return tree


def folder(folder: Path, drawn: Drawn) -> Tree:
    """Semicolons, Windows' encoding, subfolders, and the pitfalls of tables written by hand."""
    root, secret = folder / "mine", folder / "secret.jpg"
    drawn.save(secret)
    tree = Tree(root, tables=("faces.csv",))
    lines = ["File;Identity;Age;Gender;Race"]

    def row(line: str, face: tuple = (), reason: str = "", file: str = "") -> None:
        file = file or line.split(";")[0]
        if file not in ("gone.jpg", "../secret.jpg", str(secret)) and not (root / file).exists():
            drawn.save(root / file)
        lines.append(line)
        tree.expect(file, face, reason, len(lines) - 2)

    row("a/anna 1.jpg;Anna;34;female;", ("Anna", 34.0, "female", None))
    row("a/anna 2.jpg;Anna;3;F;n/a", ("Anna", 3.0, "female", None))
    row("b/jörg.jpg;Jörg;0;m;white", ("Jörg", 0.0, "male", "white"))
    row("B\\LOWER.JPG;007;41.5;Man;", ("007", 41.5, "male", None), file="b/lower.jpg")
    row("nobody.jpg;;60;unknown;", ("nobody.jpg", 60.0, None, None))
    row("b/x.jpg;x;30;diverse;", ("x", 30.0, None, None))
    row('b/quote.jpg;"x;30;m;', reason="the row of faces.csv has 2 fields")  # and the next are whole
    row("b/y.jpg;y;;;", reason="no age is given")
    row("b/z.jpg;z;-1;;", reason="-1 lies outside")
    row("b/old.jpg;z;250;;", reason="250 lies outside")
    row("b/old.jpg;z;25;m;", ("z", 25.0, "male", None))  # whose first row was bad
    row("b/short.jpg;z;25", reason="the row of faces.csv has 3 fields, and the header 5")
    row("b/long.jpg;z;25;m;;more", reason="the row of faces.csv has 6 fields, and the header 5")
    row("gone.jpg;z;25;m;", reason="the row's file is not there")
    row("../secret.jpg;z;25;m;", reason="leads out of the data folder")
    row(f"{secret};z;25;m;", reason="leads out of the data folder")
    row("a/anna 1.jpg;Anna;35;female;", reason="an earlier row names the same file")
    (root / "b/cut.jpg").write_bytes((root / "b/x.jpg").read_bytes()[:2000])
    row("b/cut.jpg;Cut;30;m;", reason="does not open as a picture")
    tree.rows = len(lines) - 1
    lines.insert(5, ";;;;")  # a spreadsheet's empty row is none
    (root / "faces.csv").write_bytes("\r\n".join(lines).encode("cp1252"))

    drawn.save(root / "a/forgotten.jpg")
    (root / "notes.md").write_text("about")
    os.mkfifo(root / "b/pipe.jpg")
    tree.rejected |= {
        ("a/forgotten.jpg", None): "no row of faces.csv names the file",
        ("notes.md", None): "not a picture",
        ("b/pipe.jpg", None): "no ordinary file inside",
    }
    return tree


TREES: dict[str, Callable[[Path, Drawn], Tree]] = {
    builder.__name__: builder for builder in (morph, cacd, fgnet, celeba, utkface, folder)
}
