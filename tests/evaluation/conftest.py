"""The tiny run for the tests of this folder, and one evaluation of all its methods."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper

import ageflow
from ageflow.config import Ablations
from ageflow.data.faces import Faces
from ageflow.evaluation.evaluate import Evaluation, Judged, read_judged
from ageflow.run import Workspace
from tests.tiny import parameters, tiny_run


@pytest.fixture(scope="session")
def runs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny")


def linked(run: Path, copy: Path) -> Path:
    """A copy of runs, to change: of links, as a file is replaced and never written into."""
    return shutil.copytree(run, copy, copy_function=os.link)


@pytest.fixture
def run(runs_root, tmp_path):
    """A copy of the tiny run."""
    return linked(runs_root, tmp_path / "runs")


@pytest.fixture(scope="session")
def evaluated(runs_root, tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """A copy of the tiny run whose four methods are all judged, never to be changed; and what `judge_all` returned."""
    runs = linked(runs_root, tmp_path_factory.mktemp("evaluated") / "runs")
    return runs, Evaluation(settings_of(runs)).judge_all()


@pytest.fixture
def judged(evaluated, tmp_path):
    """A copy of that, to change."""
    return linked(evaluated[0], tmp_path / "judged")


def settings_of(run: Path, **more: object) -> Ablations:
    few = {"evaluation_faces": 8, "evaluation_batch": 5, "cycle_faces": 4, "continuous_faces": 4, "strength_faces": 4}
    return ageflow.settings("ablations", parameters(run, **few | {"strengths": [0.5]} | more))


def folder_of(run: Path) -> Path:
    return Workspace.of(settings_of(run)).path("evaluation")


def read(run: Path, name: str) -> Judged:
    return read_judged(folder_of(run), name)


def written(run: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder_of(run).iterdir()}


@pytest.fixture(scope="session")
def faces(runs_root) -> Faces:
    """A woman and a man of the held-out people, in each age group."""
    return take(Faces.open(runs_root / "demo/tiny/faces").select(split="test"), range(8))


def take(faces: Faces, rows: Sequence[int]) -> Faces:
    """Some of the faces, in this order."""
    return Faces(faces.folder, faces.table.iloc[rows])


def arcface_file(
    path: Path, batch: int | str = "batch", side: int = 112, added: float = 1.0, steps: Sequence = (), **how: object
) -> Path:
    """An ONNX model with ArcFace's input whose embedding is the mean colour of its input, plus 1.

    `steps`, such as ("Sub", 127.5), are done to the input before; a list of numbers is one for each colour.
    """
    constants = [numpy_helper.from_array(np.full(3, added, np.float32), "added")]
    nodes, entry = [], "data"
    for number, (kind, value) in enumerate(steps):
        values = np.reshape(np.float32(value), (1, -1, 1, 1) if np.ndim(value) else ())
        nodes.append(helper.make_node(kind, [entry, f"constant{number}"], [f"step{number}"]))
        entry, made = f"step{number}", numpy_helper.from_array(values, f"constant{number}")
        if number % 2:  # some exports write constants as nodes
            nodes.insert(0, helper.make_node("Constant", [], [made.name], value=made))
        else:
            constants.append(made)
    nodes += [
        helper.make_node("GlobalAveragePool", [entry], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["colour"]),
        helper.make_node("Add", ["colour", "added"], ["embedding"]),  # so that the scale shows after normalisation
    ]
    inputs = [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, side, side])]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, 3])]
    graph = helper.make_graph(nodes, "colour", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path, **how)
    return path
