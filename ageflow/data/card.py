"""The data card: what a prepared set holds, where it comes from and what its labels are worth."""

import re

import pandas as pd

from ageflow.config import PrepareData
from ageflow.data.records import AGE_GROUPS, Reading, Rejection

__all__ = ["counts_table", "data_card"]


def counts_table(faces: pd.DataFrame, attribute: str = "gender") -> pd.DataFrame:
    """Faces per age group (rows), half and value of an attribute (columns), with totals.

    Arguments:
        faces: `Faces.table`.
        attribute: "gender" or "race"; unknown values are counted as "unknown".
    """
    groups = pd.Categorical.from_codes(faces["group"], categories=list(AGE_GROUPS))
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
    identities = faces.groupby("split")["identity"].nunique()
    origin = f"{settings.data_root}" if settings.data_root else "made by the kit"
    lines = [
        f"# {settings.dataset}: {len(faces):,} faces of {faces['identity'].nunique():,} identities",
        "",
        f"Aligned to {settings.image_size}×{settings.image_size} pixels, ages {faces['age'].min():g} to "
        f"{faces['age'].max():g} years. Source: {origin}. Turned away: {len(rejected):,} (rejected.csv).",
        "",
        *(f"* {note}" for note in reading.notes),
        "",
        "## Split",
        "",
        f"By identity, seed {settings.seed}, test share {settings.test_share:g}: "
        f"{identities.get('train', 0):,} identities to train on, {identities.get('test', 0):,} to test on, none in both.",
    ]
    if not reading.identities:
        lines.append(
            "This set names no identities: every picture counts as its own, so one person may be in both halves."
        )
    for attribute in ("gender", "race"):
        if faces[attribute].notna().any():
            lines += [
                "",
                f"## Faces per age group, half and {attribute}",
                "",
                _markdown(counts_table(faces, attribute)),
            ]
    if rejected:
        kinds = [
            re.sub(r"\d+(\.\d+)?", "…", line.reason) for line in rejected
        ]  # a reason counts once, whatever its numbers
        reasons = pd.Series(kinds).value_counts()
        lines += ["", "## Turned away", "", *(f"* {count:,}: {reason}" for reason, count in reasons.items())]
    parameters = {name: value for name, value in settings.model_dump().items() if name not in ("runs_root", "progress")}
    lines += ["", "## Parameters", "", *(f"* {name}: {value}" for name, value in parameters.items()), ""]
    return "\n".join(lines)


def _markdown(counts: pd.DataFrame) -> str:
    titles = [" ".join(str(part) for part in column if part != "") for column in counts.columns]
    rows = [f"| age group | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    rows += [f"| {group} | {' | '.join(str(value) for value in counts.loc[group])} |" for group in counts.index]
    return "\n".join(rows)
