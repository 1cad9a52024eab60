"""The evaluation of a run by the paper's protocol (3.3): every test face into the other three groups, and judged.

`evaluate_real` puts the real test faces before the same judges: that is the most that a method can reach, and the scale
on which its cosines are read. `evaluate_beyond` and `evaluate_strengths` have what the paper does not measure: whether
a face comes back, whether translated faces as a crowd are like real ones, whether the age rises with the age that is
asked for, and what moving a face further gains and costs.

What was judged from the same faces, weights, judges and settings is not judged again; a stopped evaluation continues.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any

import pandas as pd
import torch

from ageflow.checkpoint import fingerprint
from ageflow.config import Ablations
from ageflow.evaluation import protocol
from ageflow.evaluation.judged import Batches, Judged, file_name, read_judged, write_judged
from ageflow.evaluation.judges import Judges
from ageflow.evaluation.realism import kid_by_group
from ageflow.evaluation.scores import monotonicity, strength_curves, summary
from ageflow.run import Manifest, Workspace, digest
from ageflow.translation.methods import METHODS, LatentMethod, load_method

# What a run must hold for each method.
METHOD_PARTS = {
    **dict.fromkeys(("glow", "glow+attribute"), ("glow", "prototypes")),
    "no_ictm": ("glow", "no_ictm"),
    "ageflow": ("glow", "ictm"),
}
PROTOCOL = "3"  # of what is measured and how: a file of another protocol is made again
Made = tuple[pd.DataFrame, dict[str, Any]]  # rows, and what else is noted of them


class Evaluation:
    """The evaluation of a run; its files lie in ``evaluation/``.

    Arguments:
        settings: of notebook 06.

    Raises:
        MissingArtefactError: notebook 01 or 05 has not run.
        NotJudgedError: there is no test face.
    """

    def __init__(self, settings: Ablations) -> None:
        self.settings, self.workspace = settings, Workspace.of(settings)
        self.faces = protocol.held_out_faces(settings)
        classifiers = self.workspace.require("classifiers")
        self.judges = Judges.load(classifiers, settings)
        self.folder = self.workspace.folder("evaluation")
        self._methods: dict[str, LatentMethod] = {}
        # What every judgement depends on, that of the real faces, too.
        names = ("age", *self.judges.attributes)
        self.fingerprints = {f"classifiers/{name}": fingerprint(classifiers / name) for name in names} | {
            "faces": self.faces.fingerprint,
            "embedder": self.judges.embedder.fingerprint,
            "features": self.judges.features.fingerprint,
            "chosen": self._choice(settings.evaluation_faces),
            "protocol": PROTOCOL,
        }

    @cached_property
    def real(self) -> Judged:
        """The real faces; ``real.parquet``."""

        def make(_: Judged | None) -> Made:
            rows = protocol.judge_faces(self.faces, self.judges, self._batches(self.fingerprints, "real"))
            # KID of a method that leaves every face as it is: the scale to read the methods' on.
            row, target = protocol.other_groups(self.faces)
            return rows, self._kid(rows.iloc[row].assign(target=target), rows)

        return self._kept("real", self.fingerprints, make)

    def method(self, name: str) -> Judged:
        """A method's translated faces; ``<name>.parquet``."""
        made_from = self._made_from(name)

        def make(_: Judged | None) -> Made:
            real, batches = self.real.rows, self._batches(made_from, name)
            rows = protocol.judge_method(self._load(name), self.faces, self.judges, real, batches)
            return rows.drop(columns="feature"), self._kid(rows, real)

        return self._kept(name, made_from, make)

    def cycles(self) -> Judged:
        """`cycle_errors` of every method of the settings; ``cycle.parquet``."""
        return self._gathered("cycle", self.settings.cycle_faces, protocol.cycle_errors)

    def continuous(self) -> Judged:
        """`predicted_ages` of every method of the settings; ``continuous.parquet``."""
        measure = partial(protocol.predicted_ages, judges=self.judges)
        return self._gathered("continuous", self.settings.continuous_faces, measure)

    def strengths(self) -> Judged:
        """Every method of the settings moving faces less and more of the way; ``strength.parquet``.

        At 1 a method is as `method` judged it: those rows are taken from there.
        """
        judging = {"judges": replace(self.judges, features=self.judges.second), "real": self.real.rows}  # no Inception

        def measure(method: LatentMethod, faces: protocol.Faces, batches: Batches, strength: float) -> pd.DataFrame:
            if strength == 1:
                rows = self.method(method.name).rows
                return rows[rows["face"].isin(faces.table["face"])].assign(strength=1.0)
            rows = protocol.judge_method(method.at(strength), faces, batches=batches, **judging)
            return rows.drop(columns="feature").assign(strength=strength)

        strengths = sorted({1.0, *self.settings.strengths})
        return self._gathered("strength", self.settings.strength_faces, measure, strengths)

    def _gathered(
        self, file: str, wanted: int | None, measure: Callable[..., pd.DataFrame], strengths: Sequence[float] = ()
    ) -> Judged:
        """One file for all methods; those whose faces, weights and judges are the same as before are not measured.

        Arguments:
            file: its name.
            wanted: how many faces.
            measure: of a method, faces and `batches`, and a strength where there are any.
            strengths: each is measured, and kept, by itself.
        """
        chosen = protocol.spread_evenly(self.faces.groups, wanted, self.settings.seed)
        asked, made_from = {}, {}
        for method in self.settings.methods:
            for more in [{"strength": strength} for strength in strengths] or [{}]:
                called = " at ".join(map(str, (method, *more.values())))
                asked[called] = {"method": method} | more
                made_from[called] = self._made_from(method) | {"of these": self._choice(wanted)}

        def make(before: Judged | None) -> Made:
            then = {} if before is None else before.about["fingerprints"]
            parts = []
            for called, item in asked.items():
                if then.get(called) == made_from[called]:
                    parts.append(before.rows[(before.rows[list(item)] == list(item.values())).all(axis=1)])
                    continue
                batches = self._batches(made_from[called], file, called)
                faces, more = protocol.take(self.faces, chosen), {"batches": batches} | item
                parts.append(measure(self._load(more.pop("method")), faces, **more))
            return pd.concat(parts, ignore_index=True), {}

        return self._kept(file, made_from, make)

    def _kept(self, file: str, made_from: dict[str, Any], make: Callable[[Judged | None], Made]) -> Judged:
        """What a file holds, if it was made from the same; otherwise what `make` makes, given what is there."""
        path = self.folder / file_name(file)
        judged = read_judged(path) if path.is_file() else None
        if judged is None or judged.about["fingerprints"] != made_from:
            rows, more = make(judged)
            about = self.settings.model_dump(include={"dataset", "run", "preset", "external"}) | {
                "method": file,
                "evaluated": datetime.now(UTC).isoformat(timespec="seconds"),
                "embedder": self.judges.embedder.name,
                "threshold": self.judges.embedder.threshold,
                "faces": rows["face"].nunique(),
                "identities": rows["identity"].nunique(),
                "fingerprints": made_from,
            }
            judged = write_judged(path, rows, about | more)
        shutil.rmtree(self.folder / f"{file}.parts", ignore_errors=True)
        return judged

    def _batches(self, made_from: dict[str, str], file: str, *name: str) -> Batches:
        """Batches of a file, kept in ``<file>.parts`` until it is written."""
        folder, settings = self.folder.joinpath(f"{file}.parts", *name), self.settings
        return Batches(folder, made_from, settings.evaluation_batch, ", ".join((file, *name)), settings.progress)

    def _choice(self, wanted: int | None) -> str:
        return "all" if wanted is None else f"{wanted} by seed {self.settings.seed}"

    def _made_from(self, name: str) -> dict[str, str]:
        return self.fingerprints | self._load(name).weights

    def _load(self, name: str) -> LatentMethod:
        if name not in self._methods:
            settings = self.settings
            self._methods[name] = load_method(name, settings.dataset, settings.run, settings.runs_root, settings.device)
        return self._methods[name]

    def _kid(self, rows: pd.DataFrame, real: pd.DataFrame) -> dict[str, Any]:
        crowds = [(protocol.vectors(each["feature"]), torch.tensor(each["target"].to_numpy())) for each in (rows, real)]
        kid = kid_by_group(*crowds[0], *crowds[1], self.settings.seed)
        return {"features": self.judges.features.kid, "kid": kid}


def evaluate_real(settings: Ablations) -> Judged:
    """The real test faces before the judges, kept as ``evaluation/real.parquet``: made once, then read.

    Returns:
        The rows of `ageflow.evaluation.protocol.judge_faces`.

    Raises:
        MissingArtefactError: notebook 01 or 05 has not run.
        NotJudgedError: there is no test face.
    """
    return Evaluation(settings).real


def evaluate(settings: Ablations, method_name: str) -> pd.DataFrame:
    """Judge one method on the test faces and keep the rows as ``evaluation/<method>.parquet``.

    Arguments:
        settings: of notebook 06.
        method_name: ``glow``, ``glow+attribute``, ``no_ictm`` or ``ageflow``.

    Returns:
        The rows of `ageflow.evaluation.protocol.judge_method`.

    Raises:
        MissingArtefactError: an earlier notebook has not run; the message says which.
        CheckpointError: the method's parts belong to different GLOWs.
        NotJudgedError: there is no test face.
    """
    return Evaluation(settings).method(method_name).rows


def evaluate_all(settings: Ablations) -> pd.DataFrame:
    """Judge the real faces and every method of `settings`, by every measure; ``evaluation/manifest.json`` comes last.

    Returns:
        One row a method, and one for the real faces: age accuracy (%) by the run's classifier and by the second
        judge, cosine, cosine centred on the mean face, the share (%) that the embedder verifies, and the share (%)
        that kept each attribute when aged from 30-, over all rows; notebook 07 has them by group, with intervals.
        Of the real faces, identity is that of two photos of one person and the rest is what the judges get right.
    """
    evaluation = Evaluation(settings)
    for part in dict.fromkeys(part for name in settings.methods for part in METHOD_PARTS[name]):
        evaluation.workspace.require(part)  # before hours are spent on the other methods
    judged = {"real faces": evaluation.real} | {name: evaluation.method(name) for name in settings.methods}
    found = {name: summary(one.rows, "_same" if one is evaluation.real else "") for name, one in judged.items()}
    everything = [*judged.values(), evaluation.cycles(), evaluation.continuous(), evaluation.strengths()]
    evaluated = max(one.about["evaluated"] for one in everything)
    details = {"methods": settings.methods, "evaluated": evaluated, "summary": found, "external": settings.external}
    Manifest(evaluation.fingerprints, fingerprint=digest(details), details=details).write(evaluation.folder)
    return pd.DataFrame(found).T.rename_axis("method")


def evaluate_beyond(settings: Ablations) -> pd.DataFrame:
    """What the paper does not measure, of every method of `settings`; what is kept from `evaluate_all` is only read.

    Returns:
        One row a method: the means of `ageflow.evaluation.protocol.cycle_errors`; KID, averaged over the target groups,
        in a column that names whose features it is of; rho, the mean rank correlation of target and predicted age,
        monotone, the share of faces (%) for which it is at least 0.9, and the same by the second judge. The first row
        is KID of the real faces of the other groups: of a method that changes nothing.
    """
    evaluation = Evaluation(settings)
    cycles, continuous = (part.rows.groupby("method") for part in (evaluation.cycles(), evaluation.continuous()))
    found = {}
    for name in settings.methods:
        row = cycles.get_group(name)[list(protocol.CYCLE_COLUMNS)].mean().to_dict() | _kid(evaluation.method(name))
        for column, suffix in (("predicted_age", ""), ("second_age", "_second")):
            scored = monotonicity(continuous.get_group(name), column)
            row |= {f"rho{suffix}": scored["rho"].mean(), f"monotone{suffix}": 100 * scored["monotone"].mean()}
        found[METHODS[name]] = row
    table = pd.DataFrame.from_dict(
        {"faces as they are": _kid(evaluation.real)} | found, orient="index", columns=list(row)
    )
    return table.rename_axis("method")


def _kid(judged: Judged) -> dict[str, float]:
    return {judged.about["features"]: pd.DataFrame(judged.about["kid"])["kid"].mean()}


def evaluate_strengths(settings: Ablations) -> pd.DataFrame:
    """Every method of `settings` moving faces less and more of the way; what is kept from `evaluate_all` is only read.

    Returns:
        One row a method and strength (of `strengths`, and 1): age accuracy (%) by the run's classifier and by the
        second judge, cosine centred on the mean face, and the share (%) that the embedder verifies, each the mean of
        the target groups' means.
    """
    curves = strength_curves(Evaluation(settings).strengths().rows)
    return curves.assign(method=curves["method"].map(METHODS)).set_index(["method", "strength"])
