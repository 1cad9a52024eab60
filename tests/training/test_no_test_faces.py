"""A set without test faces is trained to the end: previews and notebooks show its training faces."""

import json

import pandas as pd
import pytest

import ageflow
from ageflow.data.faces import Faces
from ageflow.run import Manifest
from ageflow.training.glow import train_glow
from ageflow.translation.prototypes import compute_prototypes, encode_faces
from tests.conftest import ROOT
from tests.tiny import settings_of, write_faces


@pytest.fixture(scope="module")
def runs_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    folder = ageflow.Workspace(root, "demo", "tiny").path("faces")
    write_faces(folder)
    pd.read_parquet(folder / "faces.parquet").assign(split="train").to_parquet(folder / "faces.parquet")
    Manifest(fingerprint=Faces.open(folder).fingerprint).write(folder)
    train_glow(settings_of("train_glow", root))
    compute_prototypes(settings_of("prototypes", root), encode_faces(settings_of("prototypes", root)))
    return root


@pytest.mark.parametrize("notebook", ["02_train_glow", "04_train_ictm", "05_train_classifiers"])
def test_a_notebook_comes_to_its_end(runs_root, notebook):
    few = {} if notebook == "02_train_glow" else {"iterations": 2, "preview_every": 1, "checkpoint_every": 2}
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    exec("\n".join(code[2:]), {"ageflow": ageflow, "settings": settings_of(notebook[3:], runs_root, **few)})
