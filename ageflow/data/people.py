"""Who is one person, and which faces must be in one half of the split."""

import re
import unicodedata

import numpy as np
import pandas as pd
from PIL import Image

_LOOK = 8  # pixels: the side at which two faces are compared
# Correlation of their grey values from which on two faces count as one photograph: no pair of 718,550 of two people in
# the demo set has more than 0.972, and 94 % of their copies do (JPEG, brighter, shifted by a third of a pixel in 64).
_ALIKE = 0.985


def identity_key(name: str) -> str:
    """What the spellings of one person's name have in common: case, blanks, Unicode form, a number's zeros do not count.

    Three zeros after a comma or a point do: 1,000 may be a thousand.

    Example:
        >>> len({identity_key(name) for name in ("7", "007", " 7.0")}), identity_key("Zoe\u0308  K.") == identity_key("ZOË K.")
        (1, True)
        >>> len({identity_key(name) for name in ("1", "1,000", "1.000")})
        3
    """
    name = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    number = re.fullmatch(r"0*(\d+)(?:[.,]0{1,2})?", name)
    return number[1] if number else unicodedata.normalize("NFKC", name)


def one_spelling(identities: pd.Series) -> pd.Series:
    """Names with one spelling a person, the most frequent one; who has one spelling keeps it."""
    counts = identities.value_counts(sort=False).rename_axis("name").reset_index(name="faces")
    counts["key"] = counts["name"].map(identity_key)
    counts = counts.sort_values(["faces", "name"], ascending=[False, True])
    return identities.map(counts.groupby("key")["name"].transform("first").set_axis(counts["name"]))


def together(faces: pd.DataFrame) -> pd.Series:
    """A person's name a face: faces of one identity share it, and so do those of identities that share a picture's file.

    Arguments:
        faces: columns `identity` and `checksum` (of the file).
    """
    codes, names = pd.factorize(faces["identity"], sort=True)
    group = pd.Series(codes, index=faces.index)
    while True:
        joined = group.groupby(faces["checksum"]).transform("min").groupby(codes).transform("min")
        if joined.equals(group):
            return pd.Series(names[group], index=faces.index)
        group = joined


def remarks(faces: pd.DataFrame, written: pd.Series) -> list[str]:
    """Sentences for the data card on spellings, identical files and labels that contradict each other; none where all is well.

    Arguments:
        faces: the prepared table.
        written: the identities before `one_spelling`.
    """
    found = []
    if changed := int((written != faces["identity"]).sum()):
        several = written.groupby(faces["identity"]).unique()
        spelt = ", ".join(map(repr, several[several.map(len) > 1].iloc[0][:3]))
        found.append(f"Identities of several spellings ({spelt} …) are one person: {changed:,} faces have another now.")
    twins = faces[faces["checksum"].duplicated(keep=False)]
    if len(twins):
        labels = twins.groupby("checksum")[["identity", "age"]].nunique().gt(1).any(axis=1)
        what = f"{labels.sum():,} of them under several names or ages ({', '.join(twins['file'].head(2))} …)"
        what = f"{len(twins):,} faces of {len(labels):,} pictures, {what}"
        found.append(f"Identical files: {what}. All faces of one picture are in one half.")
    named = faces[faces["identity"] != faces["file"]]
    for label in named.columns.intersection(["gender", "race", "birth"]):
        values = named.groupby("identity")[label].nunique()
        if len(several := values[values > 1]):
            who = ", ".join(several.index[:3])
            found.append(f"Contradicting labels: {len(several):,} identities have more than one {label} ({who} …).")
    return found


def look(face: np.ndarray) -> bytes:
    """An aligned face, uint8 [S, S, 3], in so few grey values that another format, size or cut changes them little."""
    return Image.fromarray(face).convert("L").resize((_LOOK, _LOOK), Image.Resampling.BOX).tobytes()


def lookalikes(faces: pd.DataFrame, looks: list[bytes]) -> list[str]:
    """A sentence where test faces are near-duplicates of training faces; none where there are none.

    Arguments:
        faces: the prepared table.
        looks: `look` of each.
    """
    values = np.frombuffer(b"".join(looks), np.uint8).reshape(len(looks), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.linalg.norm(values, axis=1, keepdims=True).clip(min=1e-6)
    halves = {half: np.flatnonzero(faces["split"] == half) for half in ("train", "test")}
    pairs = []
    for start in range(0, len(halves["test"]) if len(halves["train"]) else 0, 64):
        rows = halves["test"][start : start + 64]
        alike = values[rows] @ values[halves["train"]].T
        pairs += [(row, halves["train"][alike[k].argmax()]) for k, row in enumerate(rows) if alike[k].max() > _ALIKE]
    shown = ", ".join(" ~ ".join(faces["file"].iloc[[*pair]]) for pair in pairs[:3])
    what = f"Near-duplicates in both halves: {len(pairs):,} test faces look like one photograph with a training face"
    return [f"{what} of another name ({shown} …): look, and give both one identity"] if pairs else []
