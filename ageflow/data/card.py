"""The data card: what a prepared set holds, where it comes from and what its labels are worth."""

import pandas as pd

from ageflow.config import PrepareData
from ageflow.data.records import AGE_GROUPS, NO_GROUP, Reading, Rejection

_UNSAID = ("runs_root", "progress", "workers", "scheduler")  # they change nothing in what is made


def counts_table(faces: pd.DataFrame, attribute: str = "gender") -> pd.DataFrame:
    """Faces per age group (rows), part and value of an attribute (columns), with totals.

    Where ages are not known, one row takes the place of the groups.

    Arguments:
        faces: `Faces.table`.
        attribute: "gender" or "race"; unknown values are counted as "unknown".
    """
    codes = faces["group"].to_numpy()
    if (codes == NO_GROUP).all():  # a set has ages or has none
        groups = pd.Categorical(["unknown"] * len(faces))
    else:
        groups = pd.Categorical.from_codes(codes, categories=list(AGE_GROUPS))
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
    halves = faces.groupby("split")["identity"].nunique()
    people = f"of {faces['identity'].nunique():,} identities" if reading.identities else "of people it does not name"
    ages = f"ages {faces['age'].min():g} to {faces['age'].max():g} years" if reading.ages else "ages unknown"
    rule = f"By identity, seed {settings.seed}, test share {settings.test_share:g}"
    if "split" in reading.table:
        rule = "As the data set itself has it"
    what = "identities" if reading.identities else "pictures"
    origin = f"{settings.data_root}" if settings.data_root else "made by the kit"
    lines = [
        f"# {settings.dataset}: {len(faces):,} faces {people}",
        "",
        f"Aligned to {settings.image_size}×{settings.image_size} pixels, {ages}. "
        f"Source: {origin}. Turned away: {len(rejected):,} (rejected.csv).",
        "",
        *(f"* {note}" for note in reading.notes),
        *_several(faces),
        "",
        "## Split",
        "",
        f"{rule}: {halves.get('train', 0):,} {what} to train on, {halves.get('test', 0):,} to test on, none in both.",
    ]
    lines += filter(None, [nobody_to_train_on(faces)])
    if not reading.identities:
        lines.append(
            "This set names no identities: every picture counts as a person of its own, so somebody may be in both halves."
        )
    known = [attribute for attribute in ("gender", "race") if faces[attribute].notna().any()]
    for attribute in known or ["gender"]:  # where neither is known, the faces are counted all the same
        title = f"## Faces per age group, part and {attribute}"
        lines += ["", title, "", _markdown(counts_table(faces, attribute))]
    if rejected:
        # A reason counts once, whatever its numbers, which are told where they are always the same.
        told = pd.Series([line.reason for line in rejected])
        kinds = told.str.replace(r"-?\d+(\.\d+)?", "…", regex=True)
        reasons = told.groupby(kinds).agg(lambda same: same.iloc[0] if same.nunique() == 1 else kinds[same.index[0]])
        counts = kinds.value_counts()
        lines += ["", "## Turned away", "", *(f"* {count:,}: {reasons[kind]}" for kind, count in counts.items())]
    parameters = {name: value for name, value in settings.model_dump().items() if name not in _UNSAID}
    lines += ["", "## Parameters", "", *(f"* {name}: {value}" for name, value in parameters.items()), ""]
    return "\n".join(lines)


def nobody_to_train_on(faces: pd.DataFrame) -> str:
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


def _several(faces: pd.DataFrame) -> list[str]:
    """A line on pictures that hold several faces, where there are any."""
    several = int((faces["found"] > 1).sum())
    if not several:
        return []
    return [
        f"* {several:,} pictures hold several faces, or something that looks like one (`found` in faces.parquet): the "
        "one that is largest and nearest the centre was taken."
    ]


def _markdown(counts: pd.DataFrame) -> str:
    titles = [" ".join(str(part) for part in column if part != "") for column in counts.columns]
    rows = [f"| age group | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    rows += [f"| {group} | {' | '.join(str(value) for value in counts.loc[group])} |" for group in counts.index]
    return "\n".join(rows)
