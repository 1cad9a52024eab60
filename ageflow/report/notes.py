"""What a reader must know to read a table: the lines of ``notes.toml``, and what this run's numbers need said."""

import tomllib
from importlib import resources

import numpy as np
import pandas as pd

from ageflow.config import Tables
from ageflow.report.metrics import METRICS
from ageflow.report.published import PAPER_DATASETS
from ageflow.report.results import Results

OWN = "this run"  # how the source of this run's rows begins


def notes(number: int, numbers: pd.DataFrame, results: Results, settings: Tables) -> list[str]:
    """The lines below table `number`, whose numbers are `numbers`."""
    about, dataset = results.real.about, results.workspace.dataset
    nobody_twice = about["identities"] == about["faces"]
    facts = about | {
        "run": results.run,
        "evaluated": results.evaluated[:10],
        "people": "each of another person, as far as known" if nobody_twice else f"of {about['identities']} people",
        "whose": f", {about['external']}'s, new to the run" if about.get("external") else "",
        "confidence": 100 * settings.confidence,
        "bootstrap": settings.bootstrap,
        "orientation": ""
        if dataset in PAPER_DATASETS
        else f" It has no numbers on {dataset}: these are of other faces.",
        "scale": "" if about["embedder"].startswith("ArcFace") else ", another scale",
    }
    known = tomllib.loads(resources.files("ageflow.report").joinpath("notes.toml").read_text())["line"]
    lines = [line["text"].format(**facts) for line in known if number in line["tables"]]
    lines += filter(None, [results.trained_since])
    lines += _equal_age(numbers, results) if number == 6 else _of_fewer(number, results)
    return lines + _reasons(numbers)


def _equal_age(numbers: pd.DataFrame, results: Results) -> list[str]:
    """What a comparison at equal age accuracy is, and at which strength AgeFlow stands in it."""
    rows = numbers[numbers["metric"] == "cosine_at_equal_age"]
    if rows.empty:
        return []
    judged = results.strength.rows[results.strength.rows["method"] == "ageflow"]
    strengths = ", ".join(f"{strength:g}" for strength in np.sort(judged["strength"].unique()))
    places = rows.dropna(subset="strength")
    where = "; ".join(f"{row.method} {row.strength:.2f}" for row in places.itertuples())
    return [
        "At equal age accuracy: AgeFlow at the least strength at which it reaches as many ages as the other method does "
        f"as it is, or going less of its way{': ' if where else ''}{where} (1 moves a face as far as AgeFlow does; judged at {strengths}, "
        f"straight lines between them, on {judged['face'].nunique()} faces of {judged['identity'].nunique()} people)."
    ]


def _of_fewer(number: int, results: Results) -> list[str]:
    """Which of the table's numbers rest on a choice of the test faces, and on how many."""
    parts = {}
    if number in (2, 4):
        rows = next(iter(results.methods.values())).rows
        for name in results.attributes:
            labelled = (rows["source"] == 0) & rows[name].notna() & rows[f"{name}_predicted"].notna()
            parts[f"{METRICS[name].label}, labelled faces of 30-"] = rows[labelled]
    elif number == 5:
        parts = {"inverse and re-translation": results.cycle.rows, "continuous target": results.continuous.rows}
    fewer = [
        f"{what}: {rows['face'].nunique()} of {rows['identity'].nunique()} people"
        for what, rows in parts.items()
        if rows["face"].nunique() < results.real.about["faces"]
    ]
    return [f"Measured on a choice of the test faces: {'; '.join(fewer)}."] if fewer else []


def _reasons(numbers: pd.DataFrame) -> list[str]:
    """Why cells are empty or have no interval, a line a reason."""
    lines = []
    for note, rows in numbers[numbers["note"] != ""].groupby("note", sort=False):
        labels = "; ".join(METRICS[metric].label for metric in rows["metric"].unique())
        lines.append(f"{'n/a' if rows['value'].isna().all() else 'No interval'}: {note} ({labels}).")
    return lines
