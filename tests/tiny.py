"""A small run in seconds, every step of it the real one: drawn faces whose brightness is their age, 32×32.

Brightness falls with the age group and the left half is redder in women, so what a judge should say is known.
"""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ageflow
from ageflow.data.faces import Faces, shard_file
from ageflow.data.records import PAPER_GROUPS, AgeGroups
from ageflow.run import Manifest

BRIGHTNESS = (0.8, 0.6, 0.4, 0.2)
SIDE, PEOPLE = 32, 30
STRONG = {"iterations": 40, "akd_weight": 20.0, "learning_rate": 3e-3, "preview_every": 40, "checkpoint_every": 40}


def draw_face(person: int, brightness: float, rng: np.random.Generator) -> np.ndarray:
    """uint8 [S,S,3]: a person's own blobs, the brightness of an age group, the gender's tint."""
    own = np.random.default_rng(person).normal(0, 0.05, (4, 4, 3)).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
    face = brightness + own + rng.normal(0, 0.01, (SIDE, SIDE, 3))
    face[:, : SIDE // 2, 0] += 0.1 if person % 2 == 0 else -0.1
    return (np.clip(face, 0, 1) * 255).round().astype(np.uint8)


def write_faces(folder: Path, age_groups: AgeGroups = PAPER_GROUPS) -> None:
    """Faces of PEOPLE, one in each age group; every fifth person is held out."""
    rng = np.random.default_rng(0)
    papers = age_groups == PAPER_GROUPS
    ages = [25.0 + 10 * group for group in range(4)] if papers else age_groups.centres
    brightness = BRIGHTNESS if papers else np.linspace(0.8, 0.2, len(age_groups))
    rows, pixels = [], []
    for person in range(PEOPLE):
        about = {"identity": f"person{person:02d}", "gender": ("female", "male")[person % 2], "race": None}
        about |= {"split": "test" if person % 5 == 0 else "train", "source": "tiny"}
        for group, age in enumerate(ages):
            pixels.append(draw_face(person, brightness[group], rng))
            place = {"face": f"face{len(rows):04d}", "shard": 0, "row": len(rows), "file": f"{len(rows)}.png"}
            rows.append(place | {"age": age, "group": group} | about)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(shard_file(folder, 0), np.stack(pixels))
    table = pd.DataFrame(rows)
    table.attrs = {} if papers else {"bounds": list(age_groups.bounds)}
    table.to_parquet(folder / "faces.parquet")
    Manifest(fingerprint=Faces.open(folder).fingerprint).write(folder)


def parameters(runs_root: Path, **more: object) -> dict[str, object]:
    """A notebook's parameters for the tiny run."""
    return {"preset": "smoke", "run": "tiny", "runs_root": runs_root, "progress": False, **more}


def settings_of(step: str, runs_root: Path, **more: object) -> Any:
    """The settings of a step of the tiny run; T is the paper's, where nothing else is asked for."""
    paper = {"age_classifier": "latent", "condition": "target", "prior_start": "zero"} if step == "train_ictm" else {}
    return ageflow.settings(step, parameters(runs_root, **paper | more))


def copy_of(runs_root: Path, folder: Path) -> Path:
    """A copy of the tiny run, to spoil or to train further, in a folder of runs."""
    shutil.copytree(runs_root / "demo" / "tiny", folder / "demo" / "tiny")
    return folder


def encoded_run(runs_root: Path, age_groups: AgeGroups = PAPER_GROUPS, **glow: object) -> None:
    """Steps 01 to 03 of the tiny run; GLOW is trained with what is given of it."""
    from ageflow.training.glow import train_glow
    from ageflow.translation.prototypes import compute_prototypes, encode_faces

    given = parameters(runs_root)
    write_faces(ageflow.Workspace.of(ageflow.settings("prepare_data", given)).path("faces"), age_groups)
    train_glow(ageflow.settings("train_glow", given | glow))
    averages = ageflow.settings("prototypes", given)
    compute_prototypes(averages, encode_faces(averages))


@cache
def tiny_run(runs_root: Path, age_groups: AgeGroups = PAPER_GROUPS) -> Path:
    """Run steps 01 to 06 up to the trained methods and judges; returns `runs_root`."""
    from ageflow.training.classifier import train_classifiers
    from ageflow.training.ictm import train_translator, train_without_ictm

    given = parameters(runs_root)
    encoded_run(runs_root, age_groups)
    train_translator(ageflow.settings("train_ictm", given))
    train_without_ictm(ageflow.Workspace(runs_root, "demo", "tiny"))
    train_classifiers(ageflow.settings("train_classifiers", given | {"iterations": 2, "checkpoint_every": 100}))
    return runs_root
