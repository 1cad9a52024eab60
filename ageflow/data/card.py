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
    values = faces[attribute].astype(object).where(faces[attribute].notna(), "unknown").to_numpy()
    titles = {"rownames": ["age group"], "colnames": ["split", attribute]}
    counts = pd.crosstab(groups, [halves, values], dropna=False, **titles).astype(int)
    counts[("all", "")] = counts.sum(axis=1)
    counts.loc["all"] = counts.sum()
    return counts


def data_card(settings: PrepareData, reading: Reading, faces: pd.DataFrame, rejected: list[Rejection]) -> str:
    """The data card as Markdown."""
    ages = f"ages {faces['age'].min():g} to {faces['age'].max():g} years" if reading.ages else "ages unknown"
    rule = f"By identity, seed {settings.seed}, test share {settings.test_share:g}"
    rule = "As the data set itself has it" if "split" in reading.table else rule
    people = faces.groupby("split")["identity"].nunique().reindex(["train", "test"], fill_value=0)
    several, nameless = (faces["found"] > 1).sum(), (faces["identity"] == faces["file"]).sum()
    lines = [
        f"# {settings.dataset}: {len(faces):,} faces of {people.sum():,} identities\n",
        f"Aligned to {settings.image_size}×{settings.image_size} pixels, {ages}. "
        f"Source: {settings.data_root or 'made by the kit'}. Rejected: {len(rejected):,} (rejected.csv).\n",
        *(f"* {note}" for note in reading.notes),
        f"* Pictures of several faces: {several:,} (`found`); the one that is largest and nearest the centre was taken.",
        f"* Pictures without a name: {nameless:,}; each counts as an identity, so somebody may be in both halves.",
        f"\n## Split\n\n{rule}: {people['train']:,} identities to train on, {people['test']:,} to test on, none in both.",
        without_training_faces(faces),
    ]
    for attribute in [name for name in ("gender", "race") if faces[name].notna().any()] or ["gender"]:
        lines.append(f"\n## Faces per age group, part and {attribute}\n\n{_markdown(counts_table(faces, attribute))}")
    reasons = pd.Series([line.reason for line in rejected], dtype=object)
    kinds = reasons.groupby(reasons.str.replace(r"\d+", "", regex=True)).agg(["size", "first"])
    lines.append("\n## Rejected: the first reason of each kind\n")
    lines += [f"* {n:,}: {reason}" for n, reason in kinds.sort_values("size", ascending=False).to_numpy()]
    parameters = settings.model_dump(exclude=_LEFT_OUT)
    lines += ["\n## Parameters\n", *(f"* {name}: {value}" for name, value in parameters.items()), ""]
    return "\n".join(lines)


def without_training_faces(faces: pd.DataFrame) -> str:
    """Which age groups have no training face, and what of it; "" for none, or for a set that is no training set."""
    groups = faces.loc[faces["split"] == "train", "group"]
    missing = [name for number, name in enumerate(AGE_GROUPS) if not (groups == number).any()]
    if not missing or groups.empty or (groups == NO_GROUP).all():
        return ""
    return (
        f"No training face is in the age group{'s' if len(missing) > 1 else ''} {' and '.join(missing)}: notebook 03 and "
        "all after it cannot take this set. It serves to pre-train GLOW (02) and to test other runs' models (external)."
    )


def _markdown(counts: pd.DataFrame) -> str:
    titles = [" ".join(filter(None, column)) for column in counts.columns]
    rows = [["age group", *titles], ["---"] * (len(titles) + 1), *counts.reset_index().to_numpy()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
