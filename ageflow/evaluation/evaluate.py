"""The paper's protocol (3.3): every test face into the other three groups, judged by classifiers and an embedder.

`evaluate_real` puts the real test faces before the same judges: that is the most a method can reach, and the scale
its cosines are read on.
"""

import json
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ageflow.config import Ablations
from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.age import age_scores
from ageflow.evaluation.attributes import attribute_scores, judged_attributes
from ageflow.evaluation.identity import load_embedder
from ageflow.evaluation.judged import Judged, NotJudgedError, digest, file_name, read_judged, write_judged
from ageflow.evaluation.judging import Judges, classifier_names, judge_faces, judge_method
from ageflow.storage import write_atomically
from ageflow.translation.methods import load_method
from ageflow.workspace import Workspace

__all__ = ["by_group", "evaluate", "evaluate_all", "evaluate_real", "held_out_faces"]

# What each method is made of; the s of the two GLOW methods is the ICTM's.
METHOD_PARTS = {
    "glow": ("glow", "prototypes", "ictm"),
    "glow+attribute": ("glow", "prototypes", "ictm"),
    "no_ictm": ("glow", "no_ictm"),
    "ageflow": ("glow", "ictm"),
}


def held_out_faces(settings: Ablations) -> tuple[Faces, np.ndarray]:
    """The faces to judge on: the test split, and which of it.

    Returns:
        The test split, and the rows [M] int64 to judge: all, or a seeded choice of ``evaluation_faces`` of them that
        is spread evenly over the age groups.

    Raises:
        NotJudgedError: the data set has no test faces.
    """
    faces = Faces.open(Workspace.of(settings).require("faces")).select(split="test")
    if not len(faces):
        raise NotJudgedError(
            f"{Workspace.of(settings).path('faces')} has no test faces: prepare it with test_share > 0"
        )
    wanted = settings.evaluation_faces
    if wanted is None or wanted >= len(faces):
        return faces, np.arange(len(faces))
    shuffled = np.random.default_rng(settings.seed).permutation(len(faces))
    # Take turns between the groups: the k-th face of each before the (k+1)-th of any.
    turn = pd.Series(shuffled).groupby(faces.groups[shuffled]).cumcount().to_numpy()
    return faces, np.sort(shuffled[np.argsort(turn, kind="stable")[:wanted]])


def evaluate_real(settings: Ablations) -> tuple[Judged, Tensor]:
    """The real test faces before the judges, kept as ``evaluation/real.parquet``: made once, then read.

    Returns:
        The rows of `judge_faces` and the faces' embeddings [M,d].

    Raises:
        MissingArtefactError: notebook 01 or 05 has not run.
        NotJudgedError: there is no test face.
    """
    return _Evaluation(settings).real


def evaluate(settings: Ablations, method_name: str) -> pd.DataFrame:
    """Judge one method on the test split and keep the rows as ``evaluation/<method>.parquet``.

    Nothing is computed where that file is there and was made from the same faces, weights, judges and settings.

    Arguments:
        settings: of notebook 06.
        method_name: ``glow``, ``glow+attribute``, ``no_ictm`` or ``ageflow``.

    Returns:
        The rows of `ageflow.evaluation.judging.judge_method`.

    Raises:
        MissingArtefactError: an earlier notebook has not run; the message says which.
        CheckpointError: the method's parts belong to different GLOWs.
        NotJudgedError: there is no test face.
    """
    return _Evaluation(settings).method(method_name).rows


def evaluate_all(settings: Ablations) -> pd.DataFrame:
    """Judge the real faces and every method of `settings`; ``evaluation/done.json`` is written last.

    Returns:
        One row a method, and one for the real faces: age accuracy (%), cosine and the share (%) that kept each
        attribute when aged from 30-, over all rows; notebook 07 has them by group, with intervals. Of the real
        faces, the cosine is that of two photos of one person and the rest is what the classifiers get right.
    """
    evaluation = _Evaluation(settings)
    real, _ = evaluation.real
    summary = {"real faces": _summary(real.rows, real.rows["cosine_same"])}
    dates = [real.about["evaluated"]]
    for name in settings.methods:
        judged = evaluation.method(name)
        summary[name] = _summary(judged.rows, judged.rows["cosine"])
        dates.append(judged.about["evaluated"])
    done = {"methods": list(settings.methods), "evaluated": max(dates), "summary": summary}
    _write_if_new(evaluation.folder / "done.json", json.dumps(done, indent=2))
    return pd.DataFrame(summary).T.rename_axis("method")


def by_group(rows: pd.DataFrame) -> pd.DataFrame:
    """Judged faces summed up by target group: faces, age accuracy and attributes told right (%), mean cosines."""
    told = rows.assign(age_accuracy=age_scores(rows)["value"])
    columns = ["age_accuracy"]
    for name in judged_attributes(rows):
        # of faces of every group, where the tables' attribute preservation starts from 30- only
        told[name] = 100.0 * (rows[f"{name}_predicted"] == rows[name]).where(rows[f"{name}_predicted"].notna())
        columns.append(name)
    columns += [name for name in rows.columns if name.startswith("cosine")]
    groups = told.groupby("target")
    summed = pd.concat([groups.size().rename("faces"), groups[columns].mean()], axis=1)
    return summed.rename(index=dict(enumerate(AGE_GROUPS))).rename_axis("group").round(3)


def _summary(rows: pd.DataFrame, cosines: pd.Series) -> dict[str, float | None]:
    means = {"age_accuracy": age_scores(rows)["value"].mean(), "cosine": cosines.mean()}
    for name in judged_attributes(rows):
        means[name] = attribute_scores(rows, name)["value"].mean()
    return {name: None if pd.isna(mean) else round(float(mean), 4) for name, mean in means.items()}


def _write_if_new(path: Path, text: str) -> None:
    # A marker that did not change keeps its date, so that what was made from it need not be made again.
    if not path.is_file() or path.read_text() != text:
        write_atomically(path, text.encode())


class _Evaluation:
    """What judging one method and the next has in common, loaded once and only when needed."""

    def __init__(self, settings: Ablations) -> None:
        self.settings = settings
        self.workspace = Workspace.of(settings)
        self.faces, self.chosen = held_out_faces(settings)
        self.classifiers = self.workspace.require("classifiers")
        self.embedder = load_embedder(settings.embedder, settings.device)
        self.folder = self.workspace.folder("evaluation")

    @cached_property
    def judges(self) -> Judges:
        return Judges.load(self.classifiers, self.embedder, self.settings.device)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """What every judgement depends on, that of the real faces too."""
        wanted = self.settings.evaluation_faces
        names = classifier_names(self.classifiers)
        return {f"classifiers/{name}": digest(self.classifiers / name) for name in names} | {
            "faces": self.faces.fingerprint,
            "embedder": self.embedder.fingerprint,
            "chosen": "all" if wanted is None else f"{wanted} by seed {self.settings.seed}",
        }

    @cached_property
    def real(self) -> tuple[Judged, Tensor]:
        judged = self._kept("real", self.fingerprints)
        if judged is None:
            batch, progress = self.settings.evaluation_batch, self.settings.progress
            rows, embeddings = judge_faces(self.faces, self.chosen, self.judges, batch, progress)
            judged = self._keep("real", rows.assign(embedding=list(embeddings.numpy())), self.fingerprints)
        embeddings = torch.from_numpy(np.stack(judged.rows["embedding"].to_list()))
        return Judged(judged.rows.drop(columns="embedding"), judged.about), embeddings

    def method(self, name: str) -> Judged:
        for part in METHOD_PARTS[name]:
            self.workspace.require(part)
        chosen = self.settings
        method = load_method(name, chosen.dataset, chosen.run, runs_root=chosen.runs_root, device=chosen.device)
        made_from = self.fingerprints | method.weights
        if "prototypes" in METHOD_PARTS[name]:
            made_from["prototypes"] = digest(self.workspace.require("prototypes"))
        judged = self._kept(name, made_from)
        if judged is None:
            judging = (self.judges, self.real[1], chosen.evaluation_batch, chosen.progress)
            rows = judge_method(method, name, self.faces, self.chosen, *judging)
            judged = self._keep(name, rows, made_from)
        return judged

    def _kept(self, name: str, made_from: dict[str, str]) -> Judged | None:
        path = self.folder / file_name(name)
        judged = read_judged(path) if path.is_file() else None
        return judged if judged is not None and judged.about["fingerprints"] == made_from else None

    def _keep(self, name: str, rows: pd.DataFrame, made_from: dict[str, str]) -> Judged:
        about = {
            "method": name,
            "dataset": self.settings.dataset,
            "run": self.settings.run,
            "preset": self.settings.preset,
            "evaluated": datetime.now(UTC).isoformat(timespec="seconds"),
            "embedder": self.embedder.name,
            "faces": int(rows["face"].nunique()),
            "identities": int(rows["identity"].nunique()),
            "fingerprints": made_from,
        }
        return write_judged(self.folder / file_name(name), rows, about)
