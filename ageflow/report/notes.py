"""What a reader must know to read a table: the lines of ``notes.toml``, and what this run's numbers need said."""

import tomllib
from importlib import resources

import numpy as np
import pandas as pd

from ageflow.config import Tables
from ageflow.evaluation.judges import ATTRIBUTES
from ageflow.report.metrics import METRICS
from ageflow.report.published import PAPER_DATASETS
from ageflow.report.results import Results
from ageflow.translation.methods import METHODS


def notes(number: int, numbers: pd.DataFrame, results: Results, settings: Tables) -> list[str]:
    """The lines below table `number`, whose numbers are `numbers`."""
    about, dataset, strength = results.real.about, results.workspace.dataset, results.strength.rows
    known, same_people = results.real.rows[results.real.rows["source"] == 0], about["identities"] == about["faces"]
    at_strength = numbers.get("strength", pd.Series(dtype=float)).dropna()
    places = [f"{numbers['method'][row]} {value:.2f}" for row, value in at_strength.items()]
    facts = about | {
        "run": results.run,
        "evaluated": results.evaluated[:10],
        "people": "each of another person, as far as known" if same_people else f"of {about['identities']} people",
        "whose": f", {about['external']}'s, new to the run" if about.get("external") else "",
        "confidence": 100 * settings.confidence,
        "bootstrap": settings.bootstrap,
        "orientation": ""
        if dataset in PAPER_DATASETS
        else f" It has no numbers on {dataset}: these are of other faces.",
        "scale": "" if about["embedder"].startswith("ArcFace") else ", another scale",
        "labelled": ", ".join(f"{name} of {known[name].notna().sum()}" for name in results.attributes) or "none",
        "cycle": _faces(results.cycle.rows),
        "continuous": _faces(results.continuous.rows),
        "strength": _faces(strength),
        "strengths": ", ".join(f"{each:g}" for each in np.sort(strength["strength"].unique())),
        "places": "; ".join(places) or "nowhere",
    }
    lines = tomllib.loads(resources.files("ageflow.report").joinpath("notes.toml").read_text())["line"]
    found = [line["text"].format(**facts) for line in lines if number in line["tables"]]
    missing = [name for method, name in METHODS.items() if method not in results.methods]
    missing += [name for name in ATTRIBUTES if number in (2, 4) and name not in results.attributes]
    found += [f"Not judged: {', '.join(missing)} (no such labels, or not asked for)."] if missing else []
    return [*found, *filter(None, [results.trained_since]), *_reasons(numbers)]


def _faces(rows: pd.DataFrame) -> str:
    return f"{rows['face'].nunique()} faces of {rows['identity'].nunique()} people"


def _reasons(numbers: pd.DataFrame) -> list[str]:
    """Why cells are empty or have no interval, a line a reason."""
    lines = []
    for note, rows in numbers[numbers["note"] != ""].groupby("note", sort=False):
        labels = "; ".join(METRICS[metric].label for metric in rows["metric"].unique())
        lines.append(f"{'n/a' if rows['value'].isna().all() else 'No interval'}: {note} ({labels}).")
    return lines
