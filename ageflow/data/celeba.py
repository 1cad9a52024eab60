"""CelebA: 202,599 pictures of 10,177 people (https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html), as torchvision lays it.

::

    celeba/img_align_celeba/000001.jpg
    celeba/list_attr_celeba.txt       a count, a header of 40 attributes, then a file and 40 times 1 or -1
    celeba/identity_CelebA.txt        a file and a number, no header
    celeba/list_eval_partition.txt    a file and 0 (training), 1 (validation) or 2 (test), no header
    celeba/list_landmarks_align_celeba.txt    not read: MTCNN's points align every set in the same way

Fields stand any number of spaces apart. The tables may lie in Anno/ and Eval/ as in the original, and ``.csv`` takes the
place of ``.txt`` as on Kaggle. They are read line by line and may be subsets, unlike torchvision's, which checks MD5s
of the whole; a wrong count does no harm. A picture's row is what all the tables say of it.

`Young` is a yes or no, so the ages are not known: the set is for GLOW's pre-training, and its test half for testing
models of other sets. The halves are the set's own partition (validation counts as test).
"""

import re
from pathlib import Path

import pandas as pd

from ageflow.config import ParameterError, PrepareData
from ageflow.data.files import find_pictures
from ageflow.data.matching import base_name, join, named
from ageflow.data.records import Reading
from ageflow.data.tables import lines, read_table

_NAME = re.compile(r".+\.(jpe?g|png)", re.IGNORECASE)
_EXPECTED = (
    "the folder img_align_celeba (000001.jpg …) and, beside it, list_attr_celeba.txt, identity_CelebA.txt and "
    "list_eval_partition.txt"
)
# Our column: the table, its column, and what its values mean.
_TABLES = {
    "gender": ("list_attr_celeba", "male", {"1": "male", "-1": "female"}),
    "identity": ("identity_celeba", "identity", None),
    "split": ("list_eval_partition", "partition", {"0": "train", "1": "test", "2": "test"}),
}
_NOTE = (
    "Ages are not known (Young is a yes or no): the set serves to pre-train GLOW and as a test set of models trained on "
    "other sets, and takes no part in anything that needs age groups."
)


def read(settings: PrepareData) -> Reading:
    """The table of CelebA.

    Arguments:
        settings: `data_root`: the folder of img_align_celeba, one above it, or img_align_celeba itself.

    Raises:
        ParameterError: the pictures are not there, or a table is not what it should be.
    """
    everything, pictures = find_pictures(settings, ("img_align_celeba",), _EXPECTED)
    found = {name: everything.find(f"{table}.txt", f"{table}.csv") for name, (table, *_) in _TABLES.items()}
    paths = {column: everything.root / file for column, file in found.items() if file is not None}
    listing = everything.below(pictures, found.values())
    if listing.root.name.casefold() != "img_align_celeba" and not paths:
        raise ParameterError(
            f"data_root = {settings.data_root} holds pictures, but neither img_align_celeba nor a table of CelebA's: for "
            f"dataset = 'celeba' it should be the folder that holds {_EXPECTED}. Pictures of your own are dataset = 'folder'"
        )
    notes = [_NOTE, *(f"{path.name} was read." for path in paths.values())]
    if paths:
        rows = pd.concat([_table(path, column) for column, path in paths.items()], axis=1)
        reasons = rows[["reason"]].replace("", None).bfill(axis=1).iloc[:, 0].fillna("")
        rows = rows.drop(columns="reason").assign(reason=reasons).rename_axis("file").reset_index()
        table, left = join(rows, listing, " or ".join(path.name for path in paths.values()), (base_name,))
    else:
        table, left = named(listing, _NAME, "a picture's")
        notes.append("There are no tables: neither gender nor identity nor partition is known.")
    counts = table.loc[table["reason"] == ""].isna().sum()
    if counts.get("identity"):
        notes.append(f"{counts['identity']:,} pictures have no identity: each counts as a person of its own.")
    if "split" in paths:
        notes.append("The halves are the set's partition: its training part; and validation and test together.")
        if counts["split"]:
            notes.append(
                f"{counts['split']:,} pictures are not in {paths['split'].name}: each goes with its person's others, or "
                "else to the test half."
            )
    return Reading.of(listing, table, left, notes, "celeba", identities="identity" in paths, ages=False)


def _table(path: Path, column: str) -> pd.DataFrame:
    """A table's value of each file and what is wrong with it: index file, columns `column` and `reason`."""
    _, name, meanings = _TABLES[column]
    text, _ = lines(path)
    if text and not text[0].startswith("image_id"):
        if text[0].strip().isdigit():  # the count, which a subset may have kept from the whole
            text = text[1:]
        text = [f"image_id {text[0]}", *text[1:]] if column == "gender" and text else [f"image_id {name}", *text]
    rows, _ = read_table(path, {"image_id": "file", name: column}, ("image_id", name), text)
    if meanings is not None:
        wrong = rows[column].notna() & ~rows[column].isin(list(meanings))
        rows.loc[wrong, "reason"] = f"{name} is none of {', '.join(meanings)} in {path.name}"
    contradicting = rows.groupby("file")[column].transform("nunique") > 1
    rows.loc[contradicting, "reason"] = f"two rows of {path.name} contradict each other"
    rows[column] = rows[column].map(meanings or str, na_action="ignore")
    worst = rows.sort_values("reason", ascending=False, kind="stable").drop_duplicates("file").set_index("file")
    return worst.loc[rows["file"].unique()]
