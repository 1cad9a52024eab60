"""Judged faces of a run whose numbers are known, as notebook 06 would leave them."""

import math

import numpy as np
import pandas as pd

import ageflow
from ageflow.evaluation.evaluate import read_judged, write_judged
from ageflow.run import Manifest, Workspace

PEOPLE = 40
FINGERPRINTS = {"faces": "f", "embedder": "e", "chosen": "all", "classifiers/age": "a", "classifiers/gender": "g"}
GENDERS = np.array(["female", "male"], dtype=object)
KID = [{"target": group, "kid": 0.001 * group, "spread": 0.0, "faces": 9} for group in range(4)]
CENTRES = np.array([25.0, 35.0, 45.0, 60.0])


def person(rows):
    return rows["identity"].str[2:].astype(int)


def _people(who, source, target):
    """What is known of people's faces, the second judge's age among it: it sees the target's."""
    names = {"face": [f"{a}-{b}" for a, b in zip(who, source, strict=True)], "identity": [f"id{a}" for a in who]}
    ages = {"source": source, "target": target, "second_age": CENTRES[target]}
    return names | ages | {"gender": GENDERS[who % 2]}


def judged_rows(landed, cosine, kept=1.0, groups=range(4)):
    """One face of each group for each of PEOPLE, into the three others; the first share of people lands, and keeps."""
    keys = [(who, source, target) for who in range(PEOPLE) for source in groups for target in range(4)]
    who, source, target = np.array([key for key in keys if key[1] != key[2]]).reshape(-1, 3).T
    right = who < np.asarray(landed)[target] * PEOPLE
    same = who < kept * PEOPLE
    rows = _people(who, source, target) | {"second": target, "verified": who < 0.7 * PEOPLE}
    rows |= {"predicted": np.where(right, target, (target + 1) % 4), "cosine": np.asarray(cosine)[target]}
    rows |= {"cosine_centred": rows["cosine"] - 0.4}
    return pd.DataFrame(rows | {"gender_predicted": np.where(same, GENDERS[who % 2], GENDERS[1 - who % 2])})


def real_rows(right=0.9, groups=range(4)):
    who, group = np.array([(a, b) for a in range(PEOPLE) for b in groups]).T
    rows = _people(who, group, group) | {"gender_predicted": GENDERS[who % 2]}
    rows |= {"predicted": np.where(who < right * PEOPLE, group, (group + 1) % 4)}
    rows |= {"verified_same": np.where(who < 0.8 * PEOPLE, 1.0, 0.0)}
    pairs = {"cosine_same": 0.97, "cosine_other": 0.85, "cosine_centred_same": 0.5, "cosine_centred_other": -0.1}
    return pd.DataFrame(rows).assign(**pairs, verified_other=0.1)


def default_methods():
    return {
        "glow": judged_rows((0.2, 0.3, 0.4, 0.5), (0.90, 0.91, 0.92, 0.93), 0.5),
        "ageflow": judged_rows((0.6, 0.7, 0.8, 0.9), (0.80, 0.81, 0.82, 0.83), 0.75),
    }


def continuous_rows(method, falling=0):
    """Ten people of group 1, the first `falling` of whom grow younger."""
    rows = [
        {"method": method, "face": f"f{who}", "identity": f"id{who}", "source": 1, "target_age": age}
        | {"predicted_age": -age if who < falling else age, "second_age": age}
        for who in range(10)
        for age in np.linspace(20.0, 70.0, 11)
    ]
    return pd.DataFrame(rows)


def cycle_rows(method, inverse, cycle, groups=range(4)):
    rows = judged_rows((1,) * 4, (1,) * 4, groups=groups)[["face", "identity", "source", "target"]]
    errors = {"inverse_error": inverse, "inverse_equal": 100.0, "cycle_error": cycle, "cycle_equal": 5.0}
    return rows.assign(method=method, **errors)


def strength_rows(method, numbers, strengths=(0.5, 1.0)):
    """At each strength a share of people whose face lands, and a centred cosine."""
    parts = [
        judged_rows((share,) * 4, (cosine,) * 4).assign(method=method, strength=strength, cosine_centred=cosine)
        for strength, (share, cosine) in zip(strengths, numbers, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def write_evaluation(runs_root, dataset="demo", methods=None, real=None, run="r1", **more):
    """An evaluation; `more`: the parts measured together (cycle, continuous, strength), or what is noted of the rest."""
    settings = ageflow.settings("tables", {"dataset": dataset, "run": run, "runs_root": runs_root, "bootstrap": 200})
    folder = Workspace.of(settings).folder("evaluation")
    methods = default_methods() if methods is None else methods
    together = {
        "cycle": pd.concat(cycle_rows(name, math.nan if name == "no_ictm" else 1e-6, 0.02) for name in methods),
        "continuous": pd.concat(continuous_rows(name) for name in methods),
        "strength": pd.concat(strength_rows(name, [(0.4, 0.8), (0.8, 0.6)]) for name in methods),
    }
    together |= {name: more.pop(name) for name in together if name in more}
    about = {"dataset": dataset, "run": run, "preset": "demo", "evaluated": "2026-01-02T03:04:05+00:00"}
    about |= {"embedder": "dlib", "threshold": "distance below 0.6", "faces": 4 * PEOPLE, "identities": PEOPLE}
    about |= {"fingerprints": FINGERPRINTS, "features": "kid_face_api", "kid": KID} | more
    for name, rows in {"real": real_rows() if real is None else real, **methods}.items():
        write_judged(folder, name, rows, {**about, "method": name})
    for name, rows in together.items():
        made_from = dict.fromkeys(methods, about["fingerprints"])
        write_judged(folder, name, rows, about | {"fingerprints": made_from})
    Manifest(details={"methods": list(methods)}).write(folder)
    return settings


def change_judged(settings, name, rows=None, **about):
    """Write one file of the evaluation again, with other rows or notes."""
    folder = Workspace.of(settings).path("evaluation")
    judged = read_judged(folder, name)
    write_judged(folder, name, judged.rows if rows is None else rows, judged.about | about)


def numbers_of(table, source="this run (demo/r1)"):
    numbers = table.numbers[table.numbers["source"] == source]
    return numbers.set_index(["metric", "method", "group"])
