"""What a reader must know to read a table: the lines below it."""

import math

import numpy as np
import pandas as pd

from ageflow.config import Tables
from ageflow.data.records import AGE_GROUPS
from ageflow.report.layout import METRIC_NAMES
from ageflow.report.metrics import MONOTONICITY
from ageflow.report.published import PAPER_DATASETS
from ageflow.report.results import Results

REAL = "real test faces"


def notes(number: int, numbers: pd.DataFrame, results: Results, settings: Tables) -> list[str]:
    """The lines below table `number`, whose numbers are `numbers`."""
    about = results.real.about
    whose = f", {about['external']}'s, new to the run" if about.get("external") else ""
    people = f"of {about['identities']} people"
    if about["identities"] == about["faces"]:
        people = "each of a person of its own, as far as the set tells"
    told = [
        f"This run is {results.run} (preset {about['preset']}), evaluated {results.evaluated[:10]} on {about['faces']} "
        f"test faces {people}{whose}. In brackets: {100 * settings.confidence:g} % bootstrap intervals over "
        f"identities, {settings.bootstrap} resamples."
    ]
    if number == 6:
        told.append(
            "AgeFlow's number less the other method's, in the metric's own unit; both resampled over the same people. Bold: "
            "the interval lies above 0. Over the better of two: the better in each resample. The mean is of the groups' numbers, "
            "each group counted alike; in tables 1 to 5 it is over the faces, but for KID."
        )
        told += _equal_age(numbers, results)
    else:
        told.append(
            "Bold: of this run's methods, the one whose lead over the second best excludes 0 in the paired bootstrap."
        )
    if number <= 4:
        told.append("Rows of the paper are as published; CAAE, IPCGAN and WGLCA-GAN were not run here.")
    if number <= 4 and results.workspace.dataset not in PAPER_DATASETS:
        told.append(
            f"The paper has no numbers on {results.workspace.dataset}; its numbers on MORPH and CACD are here for "
            "orientation: other faces, other classifiers."
        )
    if number in (1, 3):
        other = "" if about["embedder"].startswith("ArcFace") else ", a scale that cannot be compared with this run's"
        told.append(f"Cosines: this run's by {about['embedder']}; the paper's by ArcFace{other}.")
    if number in (1, 3, 6) and "threshold" in about:
        told.append(
            "Centred: of embeddings less the mean embedding of the real test faces. Verified: the embedder takes both "
            f"for one person ({about['threshold']})."
        )
    if number != 6:
        told.append(f"{REAL.capitalize()}: the same judges on real faces of each column's group, to read this run by.")
    if results.trained_since:
        told.append(results.trained_since)
    if number in (2, 4):
        told.append("Preserved: the attribute classifier's answer on the aged face is the face's own label.")
        told += _labelled(numbers)
    if number == 5:
        told += _beyond() + _of_fewer(numbers, about["identities"], about["faces"])
    return told + _reasons(numbers)


def _equal_age(numbers: pd.DataFrame, results: Results) -> list[str]:
    """What a comparison at equal age accuracy is, and at which strength AgeFlow stands in it."""
    rows = numbers[numbers["metric"] == "cosine_at_equal_age"]
    if rows.empty:
        return []
    of = results.strength.rows[results.strength.rows["method"] == "ageflow"]
    strengths = ", ".join(f"{strength:g}" for strength in np.sort(of["strength"].unique()))
    places = [f"{row.method} {row.strength:.2f}" for row in rows.itertuples() if not math.isnan(row.strength)]
    where = f": {'; '.join(places)}" if places else ""
    return [
        "At equal age accuracy: AgeFlow at the least strength at which it reaches as many of the ages, in the mean over the "
        f"groups, as the other method does as it is, or going less of its way{where} (1 moves a face as far as AgeFlow "
        f"does; judged at {strengths}, straight lines between them, on {of['face'].nunique()} faces of {of['identity'].nunique()} people)."
    ]


def _labelled(numbers: pd.DataFrame) -> list[str]:
    """Of how many faces an attribute's numbers are: those that are labelled, of the group that is aged."""
    own = numbers[numbers["source"].str.startswith("this run") & numbers["value"].notna()]
    counted = own.groupby("metric", sort=False)[["faces", "identities"]].max()
    each = [
        f"{METRIC_NAMES[metric]}, {row.faces} faces of {row.identities} people"
        for metric, row in zip(counted.index, counted.itertuples(index=False), strict=True)
    ]
    return [f"Of the labelled test faces of 30-, in each target group: {'; '.join(each)}."] if each else []


def _of_fewer(numbers: pd.DataFrame, people: int, faces: int) -> list[str]:
    """What was measured on a choice of the faces, and on how many of them."""
    own = numbers[(numbers["group"] == "mean") & numbers["value"].notna()]
    largest = own.groupby("metric", sort=False)[["faces", "identities"]].max()
    fewer = []
    for metric, row in zip(largest.index, largest.itertuples(index=False), strict=True):
        # A face is translated into the other groups, or taken along a continuous target once.
        of_each = 1 if metric in MONOTONICITY else len(AGE_GROUPS) - 1
        if row.identities < people or row.faces < of_each * faces:
            fewer.append(f"{METRIC_NAMES[metric]}, {row.faces // of_each} of {row.identities} people")
    return [f"Measured on a choice of the test faces: {'; '.join(fewer)}."] if fewer else []


def _beyond() -> list[str]:
    return [
        "Second judge: face-api.js's age network, which the run did not train and no label comes from.",
        "There and back: mean absolute error of pixel values in [0, 1], and the share of 8-bit values that come back "
        "the same; by the inverse of the move, or by translating the saved face to its own group.",
        "KID: against the real test faces of the column's group; no interval. In face-api.js's features it is no number "
        "to hold against published ones, which are in InceptionV3's. Real faces of the other groups stand for a "
        "method that changes nothing.",
        "Continuous target: Spearman's correlation of asked and told age, 20 to 70, by the face's own group; monotone: "
        "at least 0.9.",
    ]


def _reasons(numbers: pd.DataFrame) -> list[str]:
    """Why cells are empty or have no interval, a line a reason."""
    told = []
    for note, rows in numbers[numbers["note"] != ""].groupby("note", sort=False):
        places = []
        for (source, method, metric), cells in rows.groupby(["source", "method", "metric"], sort=False):
            places.append(f"{METRIC_NAMES[metric]}, {source}, {method}: {', '.join(cells['group'])}")
        told.append(f"{'n/a' if rows['value'].isna().all() else 'No interval'}: {note} ({'; '.join(places)}).")
    return told
