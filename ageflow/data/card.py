"""The data card: what a prepared set holds, where it comes from and what its labels are worth."""

import pandas as pd

from ageflow.config import PrepareData
from ageflow.data.records import AGE_GROUPS, NO_GROUP, Reading, Rejection

_LEFT_OUT = {"runs_root", "progress", "workers", "scheduler"}  # they change nothing in what is made


def counts_table(faces: pd.DataFrame, attribute: str = "gender") -> pd.DataFrame:
    """Faces per age group (rows), part and value of an attribute (columns), with totals.

    Where ages are not known, one row takes the place of the groups.

    Arguments:
        faces: `Faces.table`.
        attribute: "gender" or "race"; unknown values are counted as "unknown".
    """
    names = ["unknown"] if (faces["group"] == NO_GROUP).all() else list(AGE_GROUPS)  # a set has ages or has none
    groups = pd.Categorical.from_codes(faces["group"].clip(lower=0), categories=names)
    halves = pd.Categorical(faces["split"], categories=["train", "test"])
    values = faces[attribute].astype(object).where(faces[attribute].notna(), "unknown")
    counts = pd.crosstab(
        pd.Series(groups, name="age group"),
        [pd.Series(halves, name="split"), pd.Series(values.to_numpy(), name=attribute)],
        dropna=False,
    ).astype(int)
    counts[("all", "")] = counts.sum(axis=1)
    counts.loc["all"] = counts.sum()
    return counts


def data_card(settings: PrepareData, reading: Reading, faces: pd.DataFrame, rejected: list[Rejection]) -> str:
    """The data card as Markdown."""
    people = f"of {faces['identity'].nunique():,} identities" if reading.identities else "of people it does not name"
    ages = f"ages {faces['age'].min():g} to {faces['age'].max():g} years" if reading.ages else "ages unknown"
    lines = [
        f"# {settings.dataset}: {len(faces):,} faces {people}",
        "",
        f"Aligned to {settings.image_size}×{settings.image_size} pixels, {ages}. "
        f"Source: {settings.data_root or 'made by the kit'}. Rejected: {len(rejected):,} (rejected.csv).",
        "",
        *(f"* {note}" for note in reading.notes),
    ]
    if several := int((faces["found"] > 1).sum()):
        lines.append(
            f"* {several:,} pictures hold several faces, or something that looks like one (`found` in faces.parquet): the "
            "one that is largest and nearest the centre was taken."
        )
    lines += ["", "## Split", "", *_split(settings, reading, faces)]
    known = [attribute for attribute in ("gender", "race") if faces[attribute].notna().any()]
    for attribute in known or ["gender"]:  # where neither is known, the faces are counted all the same
        lines += ["", f"## Faces per age group, part and {attribute}", "", _markdown(counts_table(faces, attribute))]
    if rejected:
        # Reasons that differ in their numbers only are one kind; the numbers stand where all have the same.
        reasons = pd.Series([line.reason for line in rejected])
        kinds = reasons.str.replace(r"-?\d+(\.\d+)?", "…", regex=True)
        shown = reasons.groupby(kinds).agg(lambda same: same.iloc[0] if same.nunique() == 1 else kinds[same.index[0]])
        lines += ["", "## Rejected", "", *(f"* {n:,}: {shown[kind]}" for kind, n in kinds.value_counts().items())]
    parameters = settings.model_dump(exclude=_LEFT_OUT)
    lines += ["", "## Parameters", "", *(f"* {name}: {value}" for name, value in parameters.items()), ""]
    return "\n".join(lines)


def without_training_faces(faces: pd.DataFrame) -> str:
    """Which age groups have no training face, and what of it; "" for none, or for a set that is no training set."""
    groups = faces.loc[faces["split"] == "train", "group"]
    missing = [name for number, name in enumerate(AGE_GROUPS) if not (groups == number).any()]
    if not missing or groups.empty or (groups == NO_GROUP).all():
        return ""
    return (
        f"No training face is in the age group{'s' if len(missing) > 1 else ''} {' and '.join(missing)}: notebook 03, which "
        "averages every group, and all after it cannot take this set. It serves to pre-train GLOW (02) and to test other "
        "runs' models (external)."
    )


def _split(settings: PrepareData, reading: Reading, faces: pd.DataFrame) -> list[str]:
    halves = faces.groupby("split")["identity"].nunique()
    rule = f"By identity, seed {settings.seed}, test share {settings.test_share:g}"
    if "split" in reading.table:
        rule = "As the data set itself has it"
    what = "identities" if reading.identities else "pictures"
    train, test = halves.get("train", 0), halves.get("test", 0)
    lines = [f"{rule}: {train:,} {what} to train on, {test:,} to test on, none in both.", without_training_faces(faces)]
    if not reading.identities:
        lines.append(
            "This set names no identities: every picture counts as a person of its own, so somebody may be in both halves."
        )
    return [line for line in lines if line]


def _markdown(counts: pd.DataFrame) -> str:
    titles = [" ".join(str(part) for part in column if part != "") for column in counts.columns]
    rows = [f"| age group | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    rows += [
        f"| {group} | {' | '.join(map(str, row))} |" for group, row in zip(counts.index, counts.to_numpy(), strict=True)
    ]
    return "\n".join(rows)
