"""What notebook 01 says of prepared faces before a later notebook stops for it, after hours of training."""

import pandas as pd

from ageflow.config import PrepareData
from ageflow.data.files import UNREAD
from ageflow.data.records import GENDERS, AgeGroups, Reading
from ageflow.parameters import settings as settings_of


def advice_on_side(settings: PrepareData) -> list[str]:
    """What is wrong with the faces' side for the preset's GLOW, and what to do."""
    side, levels = settings.image_size, _of_preset("train_glow", settings).levels
    if side % 2**levels == 0:
        return []
    most = max(level for level in range(levels) if side % 2**level == 0)
    what = f"image_size = {side} cannot be halved {levels} times, as notebook 02 does in the preset {settings.preset}"
    return [f"{what}: pass a multiple of {2**levels}" + (f" here, or levels = {most} there" if most else "")]


def advice_on_faces(settings: PrepareData, faces: pd.DataFrame, reading: Reading) -> list[str]:
    """What is missing for the later notebooks, and what to do.

    Arguments:
        settings: notebook 01's.
        faces: the prepared table.
        reading: what the reader found.
    """
    found = []
    words = reading.table["gender"].dropna() if "gender" in reading.table else pd.Series(dtype=object)
    if len(strange := words[~words.isin(GENDERS)]):
        told = ", ".join(f"{word!r} ({count:,})" for word, count in strange.value_counts().head(5).items())
        found.append(f"The gender of {len(strange):,} rows is not known, as neither male nor female is written: {told}")
    if not (faces["split"] == "test").any():
        people, own_halves = faces["identity"].unique(), "split" in reading.table
        why = "the data set's own halves have none" if own_halves else "all identities share a picture"
        if len(people) == 1 and not own_halves:
            why = f"all {len(faces):,} faces are of one identity, {people[0]!r}"
        do = "bring more people, or leave the column identity out where these are different people"
        do = "let the column split say test of some" if own_halves and len(people) > 1 else do
        what = f"There are no test faces: {why}"
        found.append(f"{what}. Notebooks 02 to 05 train without, and 06 to 08 cannot judge: {do}")
    train = faces.loc[faces["split"] == "train", "group"]
    if train.empty and settings.dataset != "fgnet":
        found.append("There are no training faces: the set's own halves have none. It serves as an external test set")
    if not reading.ages and settings.dataset == "folder":
        what = "No face has an age: notebooks 01 and 02 work without (pre-training), and 03 stops"
        do = "give a column age, or name it: columns = 'file=file_name, age=real_age'"
        unread = [f". Of {line.file}: {line.reason}" for line in reading.rejections if line.reason == UNREAD]
        found.append(f"{what}. Where the ages are known, {do}{''.join(unread[:1])}")
    held = _of_preset("prototypes", settings).attributes or [] if reading.ages else []
    if unknown := [name for name in held if faces[name].isna().all()]:
        rest = [name for name in held if name not in unknown]
        what = f"No face has a {' or a '.join(unknown)}, which notebook 03 holds fixed on {settings.dataset}"
        do = f'pass attributes = {rest} there (in a batch: -p prototypes.attributes "{rest}"), or it stops'
        found.append(f"{what}: {do}")
    groups = enumerate(AgeGroups(tuple(settings.groups)).labels) if reading.ages and len(train) else ()
    if absent := [name for group, name in groups if not (train == group).any()]:
        what = f"No training face is in the age groups {', '.join(absent)}, and notebook 03 stops"
        found.append(f"{what}: pass other groups than {settings.groups}, or bring more pictures")
    return found


def _of_preset(step: str, settings: PrepareData):
    """The settings of another step that the preset and data set give."""
    return settings_of(step, {"dataset": settings.dataset, "preset": settings.preset, "run": settings.run})
