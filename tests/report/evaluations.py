"""Judged faces of a run whose numbers are known, as notebook 06 would leave them."""

import json
import math

import numpy as np
import pandas as pd

import ageflow
from ageflow.evaluation.judged import file_name, write_judged
from ageflow.run import Workspace

PEOPLE = 40
FINGERPRINTS = {"faces": "f", "embedder": "e", "chosen": "all", "classifiers/age": "a", "classifiers/gender": "g"}
GENDERS = np.array(["female", "male"], dtype=object)


def judged_rows(landed, cosine, kept, groups=range(4)):
    """One face of each group for each of PEOPLE, into the three others; the first share of people lands, and keeps."""
    rows = [
        {
            "face": f"{person}-{source}",
            "identity": f"id{person}",
            "source": source,
            "target": target,
            "gender": GENDERS[person % 2],
            "predicted": target if person < landed[target] * PEOPLE else (target + 1) % 4,
            "cosine": cosine[target],
            "gender_predicted": GENDERS[person % 2 if person < kept * PEOPLE else 1 - person % 2],
        }
        for person in range(PEOPLE)
        for source in groups
        for target in range(4)
        if source != target
    ]
    return pd.DataFrame(rows)


def real_rows(right=0.9, groups=range(4)):
    rows = [
        {
            "face": f"{person}-{group}",
            "identity": f"id{person}",
            "source": group,
            "target": group,
            "gender": GENDERS[person % 2],
            "predicted": group if person < right * PEOPLE else (group + 1) % 4,
            "gender_predicted": GENDERS[person % 2],
            "cosine_same": 0.97,
            "cosine_other": 0.85,
        }
        for person in range(PEOPLE)
        for group in groups
    ]
    return pd.DataFrame(rows)


def write_evaluation(runs_root, dataset="demo", methods=None, real=None, **about):
    settings = ageflow.settings("tables", {"dataset": dataset, "run": "r1", "runs_root": runs_root, "bootstrap": 200})
    folder = Workspace.of(settings).folder("evaluation")
    if methods is None:
        methods = {
            "glow": judged_rows((0.2, 0.3, 0.4, 0.5), (0.90, 0.91, 0.92, 0.93), 0.5),
            "ageflow": judged_rows((0.6, 0.7, 0.8, 0.9), (0.80, 0.81, 0.82, 0.83), 0.75),
        }
    common = {"dataset": dataset, "run": "r1", "preset": "demo", "evaluated": "2026-01-02T03:04:05+00:00"}
    common |= {"embedder": "dlib", "faces": 4 * PEOPLE, "identities": PEOPLE, "fingerprints": FINGERPRINTS} | about
    for name, rows in {"real": real_rows() if real is None else real, **methods}.items():
        write_judged(folder / file_name(name), rows, {**common, "method": name})
    (folder / "done.json").write_text(json.dumps({"methods": list(methods)}))
    return settings


def numbers_of(table, source="this run (demo/r1)"):
    numbers = table.numbers[table.numbers["source"] == source]
    return numbers.set_index(["metric", "method", "group"])


def continuous_rows(method, falling=0):
    """Ten people of group 1, the first `falling` of whom grow younger."""
    rows = [
        {"method": method, "face": f"f{person}", "identity": f"id{person}", "source": 1, "target_age": age}
        | {"predicted_age": -age if person < falling else age, "second_age": age}
        for person in range(10)
        for age in np.linspace(20.0, 70.0, 11)
    ]
    return pd.DataFrame(rows)


def cycle_rows(method, inverse, condition):
    rows = judged_rows((1,) * 4, (1,) * 4, 1)[["face", "identity", "source", "target"]]
    return rows.assign(method=method, inverse_error=inverse, inverse_equal=100.0, cycle_error=condition).assign(
        cycle_equal=5.0
    )


def write_beyond(settings, **fingerprints):
    folder = Workspace.of(settings).path("evaluation")
    about = {"evaluated": "2026-01-02", "fingerprints": dict.fromkeys(("glow", "ageflow"), FINGERPRINTS | fingerprints)}
    cycles = [cycle_rows("ageflow", 1e-6, 0.02), cycle_rows("glow", math.nan, 0.01)]
    write_judged(folder / "cycle.parquet", pd.concat(cycles), about)
    ages = [continuous_rows("ageflow", falling=1), continuous_rows("glow", falling=4)]
    write_judged(folder / "continuous.parquet", pd.concat(ages), about)


def write_strengths(settings, strengths=(0.5, 1.0), **of_method):
    """For each method, at each strength: a share of people whose face lands, and a centred cosine."""
    folder = Workspace.of(settings).path("evaluation")
    rows = [
        judged_rows((share,) * 4, (cosine,) * 4, 1)
        .assign(
            method=method.replace("_attribute", "+attribute"), strength=strength, cosine_centred=cosine, second_age=30.0
        )
        .assign(verified=True)
        for method, numbers in of_method.items()
        for strength, (share, cosine) in zip(strengths, numbers, strict=True)
    ]
    table = pd.concat(rows, ignore_index=True)
    each = {f"{method} at {strength!r}": FINGERPRINTS for method in table["method"].unique() for strength in strengths}
    write_judged(folder / "strength.parquet", table, {"evaluated": "2026-01-02", "fingerprints": each})
