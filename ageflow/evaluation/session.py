"""What judging one method of a run and the next has in common: loaded once, and what is judged is kept on disk."""

import contextlib
import math
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ageflow.checkpoint import fingerprint
from ageflow.config import Ablations
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.continuous import predicted_ages
from ageflow.evaluation.cycle import cycle_errors
from ageflow.evaluation.held_out import held_out_faces, spread_evenly
from ageflow.evaluation.identity import load_embedder
from ageflow.evaluation.judged import Judged, digest, file_name, read_judged, write_judged
from ageflow.evaluation.judging import Judges, classifier_names, judge_faces, judge_method
from ageflow.evaluation.parts import Parts
from ageflow.evaluation.realism import FaceFeatures, InceptionFeatures, kid_by_group, load_features
from ageflow.run import Workspace
from ageflow.translation.methods import LatentMethod, load_method

# What each method is made of; the s of the two GLOW methods is the ICTM's.
METHOD_PARTS = {
    "glow": ("glow", "prototypes", "ictm"),
    "glow+attribute": ("glow", "prototypes", "ictm"),
    "no_ictm": ("glow", "no_ictm"),
    "ageflow": ("glow", "ictm"),
}
_PARTS = "parts"  # folder of what is judged and not yet all
PROTOCOL = "2"  # of what is measured and how: a file of another protocol is made again


class RealFaces(NamedTuple):
    """The real test faces before the judges: their rows, descriptors [M,d] and features [M,f]."""

    judged: Judged
    descriptors: Tensor
    features: Tensor


class Evaluation:
    """The evaluation of a run.

    Arguments:
        settings: of notebook 06.

    Raises:
        MissingArtefactError: notebook 01 or 05 has not run.
        NotJudgedError: there is no test face.
    """

    def __init__(self, settings: Ablations) -> None:
        self.settings = settings
        self.workspace = Workspace.of(settings)
        self.faces, self.chosen = held_out_faces(settings)
        self.classifiers = self.workspace.require("classifiers")
        self.embedder = load_embedder(settings.embedder, settings.device)
        self.folder = self.workspace.folder("evaluation")
        self._methods: dict[str, LatentMethod] = {}

    @cached_property
    def judges(self) -> Judges:
        """The classifiers, the embedder and the second age judge."""
        return Judges.load(self.classifiers, self.embedder, self.settings.device)

    @cached_property
    def features(self) -> FaceFeatures | InceptionFeatures:
        """Whose features KID is of."""
        return load_features(self.settings.inception, self.judges.second, self.settings.device)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """What every judgement depends on, that of the real faces too."""
        wanted = self.settings.evaluation_faces
        names = classifier_names(self.classifiers)
        return {f"classifiers/{name}": fingerprint(self.classifiers / name) for name in names} | {
            "faces": self.faces.fingerprint,
            "embedder": self.embedder.fingerprint,
            "features": self.features.fingerprint,
            "chosen": "all" if wanted is None else f"{wanted} by seed {self.settings.seed}",
            "protocol": PROTOCOL,
        }

    @cached_property
    def real(self) -> RealFaces:
        """The real faces; ``evaluation/real.parquet``."""
        judged = self._kept("real", self.fingerprints)
        if judged is None:
            judging = (self.judges, self.features, self.settings.evaluation_batch, self.settings.progress)
            parts = self._parts("real", self.fingerprints)
            rows, descriptors, features = judge_faces(self.faces, self.chosen, *judging, parts)
            # What a method scores that leaves every face as it is: the scale to read the methods' on.
            row, target = np.nonzero(self.faces.groups[self.chosen][:, None] != np.arange(len(AGE_GROUPS)))
            kid = self._kid(features[torch.from_numpy(row)], target, features)
            rows = rows.assign(descriptor=list(descriptors.numpy()), feature=list(features.numpy()))
            judged = self._keep("real", rows, self.fingerprints, kid)
        arrays = [torch.from_numpy(np.stack(judged.rows[name].to_list())) for name in ("descriptor", "feature")]
        return RealFaces(Judged(judged.rows.drop(columns=["descriptor", "feature"]), judged.about), *arrays)

    def method(self, name: str) -> Judged:
        """A method's translated faces; ``evaluation/<name>.parquet``."""
        made_from = self._made_from(name)
        judged = self._kept(name, made_from)
        if judged is None:
            real, chosen = self.real, self.settings
            judging = (self.judges, self.features, real.descriptors, chosen.evaluation_batch, chosen.progress)
            parts = self._parts(name, made_from)
            rows, features = judge_method(self._load(name), name, self.faces, self.chosen, *judging, parts)
            kid = self._kid(features, rows["target"].to_numpy(), real.features)
            judged = self._keep(name, rows, made_from, kid)
        return judged

    def cycles(self) -> Judged:
        """`cycle_errors` of every method of the settings; ``evaluation/cycle.parquet``."""

        def measure(name: str, chosen: np.ndarray, parts: Parts) -> pd.DataFrame:
            how = (self.settings.evaluation_batch, self.settings.progress, parts)
            return cycle_errors(self._load(name), name, self.faces, chosen, *how)

        return self._gathered("cycle", self.settings.cycle_faces, measure)

    def continuous(self) -> Judged:
        """`predicted_ages` of every method of the settings; ``evaluation/continuous.parquet``."""

        def measure(name: str, chosen: np.ndarray, parts: Parts) -> pd.DataFrame:
            how = (self.judges, self.settings.evaluation_batch, self.settings.progress, parts)
            return predicted_ages(self._load(name), name, self.faces, chosen, *how)

        return self._gathered("continuous", self.settings.continuous_faces, measure)

    def strengths(self) -> Judged:
        """Every method of the settings; ``evaluation/strength.parquet``.

        At 1 a method is as `method` judged it: those rows are taken from there. A strength that is asked for beside
        those that are there is judged alone.
        """

        def measure(name: str, chosen: np.ndarray, parts: Parts, strength: float) -> pd.DataFrame:
            if strength == 1:
                rows = self.method(name).rows
                return rows[rows["face"].isin(self.faces.table["face"].to_numpy()[chosen])].assign(strength=1.0)
            embeddings = normalize(self.real.descriptors, dim=1)
            # Of one face or two the mean is the faces themselves: then there is no centred cosine at any strength.
            centre = embeddings.mean(dim=0) if len(embeddings) > 2 else torch.full_like(embeddings[0], math.nan)
            descriptors = self.real.descriptors[np.searchsorted(self.chosen, chosen)]
            how = (self.judges, None, descriptors, self.settings.evaluation_batch, self.settings.progress, parts)
            method, title = self._load(name).at(strength), f"{name}, strength {strength:g}"
            rows, _ = judge_method(method, name, self.faces, chosen, *how, centre=centre, title=title)
            return rows.assign(strength=float(strength))

        strengths = sorted({1.0, *self.settings.strengths})
        return self._gathered("strength", self.settings.strength_faces, measure, strengths)

    def _gathered(
        self, name: str, wanted: int | None, measure: Callable[..., pd.DataFrame], strengths: Sequence[float] = ()
    ) -> Judged:
        """One file for all methods; those whose faces, weights and judges are the same as before are not measured.

        Arguments:
            name: of the file.
            wanted: how many faces.
            measure: of a method, the chosen faces and where parts are kept, and a strength where there are any.
            strengths: each is measured, and kept, by itself.
        """
        chosen = self.chosen[spread_evenly(self.faces.groups[self.chosen], wanted, self.settings.seed)]
        of_these = {"of these": "all" if wanted is None else f"{wanted} by seed {self.settings.seed}"}
        asked, made_from = {}, {}
        for method in self.settings.methods:
            for strength in [[each] for each in strengths] or [[]]:
                called = " at ".join([method, *map(repr, strength)])
                asked[called] = (method, *strength)
                made_from[called] = self._made_from(method) | of_these
        kept = self._kept(name, made_from)
        if kept is not None:
            return kept
        path = self.folder / file_name(name)
        before = read_judged(path) if path.is_file() else None
        parts = []
        for called, (method, *strength) in asked.items():
            if before is not None and before.about["fingerprints"].get(called) == made_from[called]:
                rows = before.rows[before.rows["method"] == method]
                parts.append(rows[rows["strength"].isin(strength)] if strength else rows)
            else:
                parts.append(measure(method, chosen, self._parts(f"{name}/{called}", made_from[called]), *strength))
        return self._keep(name, pd.concat(parts, ignore_index=True), made_from)

    def _made_from(self, name: str) -> dict[str, str]:
        made_from = self.fingerprints | self._load(name).weights
        if "prototypes" in METHOD_PARTS[name]:
            made_from["prototypes"] = digest(self.workspace.require("prototypes"))
        return made_from

    def _load(self, name: str) -> LatentMethod:
        if name not in self._methods:
            for part in METHOD_PARTS[name]:
                self.workspace.require(part)
            chosen = self.settings
            where = {"runs_root": chosen.runs_root, "device": chosen.device}
            self._methods[name] = load_method(name, chosen.dataset, chosen.run, **where)
        return self._methods[name]

    def _kid(self, features: Tensor, targets: np.ndarray, real: Tensor) -> dict[str, object]:
        groups = self.faces.groups[self.chosen]
        found = kid_by_group(features, targets, real, groups, self.settings.seed)
        return {"features": self.features.name, "kid": found.to_dict("records")}

    def _kept(self, name: str, made_from: dict) -> Judged | None:
        path = self.folder / file_name(name)
        judged = read_judged(path) if path.is_file() else None
        if judged is None or judged.about["fingerprints"] != made_from:
            return None
        self._remove_parts(name)  # of an evaluation that was killed just before it did so
        return judged

    def _parts(self, name: str, made_from: dict[str, str]) -> Parts:
        """What is judged of it so far: ``evaluation/parts/<name>``, until the whole is kept."""
        return Parts(self.folder / _PARTS / name, made_from)

    def _remove_parts(self, name: str) -> None:
        shutil.rmtree(self.folder / _PARTS / name, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are in there, or there is none
            (self.folder / _PARTS).rmdir()

    def _keep(self, name: str, rows: pd.DataFrame, made_from: dict, more: dict[str, object] | None = None) -> Judged:
        about = {
            "method": name,
            "dataset": self.settings.dataset,
            "run": self.settings.run,
            "preset": self.settings.preset,
            "external": self.settings.external,
            "evaluated": datetime.now(UTC).isoformat(timespec="seconds"),
            "embedder": self.embedder.name,
            "threshold": self.embedder.threshold,
            "faces": int(rows["face"].nunique()),
            "identities": int(rows["identity"].nunique()),
            "fingerprints": made_from,
        }
        judged = write_judged(self.folder / file_name(name), rows, about | (more or {}))
        self._remove_parts(name)
        return judged
