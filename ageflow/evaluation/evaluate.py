"""The evaluation of a run by the paper's protocol (3.3): every test face into the other groups, and judged."""

import contextlib
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ageflow.checkpoint import fingerprint
from ageflow.config import Ablations
from ageflow.data.faces import Faces
from ageflow.data.records import AgeGroups
from ageflow.evaluation import protocol
from ageflow.evaluation.judges import Judges
from ageflow.evaluation.methods import load_method
from ageflow.evaluation.pictures import FolderMethod
from ageflow.evaluation.scores import in_groups, kid_by_group, monotonicity, strength_curves, summary
from ageflow.run import Manifest, MissingArtefactError, Workspace, atomic_file, digest, reading, write_atomically
from ageflow.translation.methods import METHODS, Method

GATHERED = ("cycle", "continuous", "strength")  # measured of all methods together
_OF_AGES = ("target_age", "predicted_age", "second_age")
_COLUMNS = ("method", "face", "identity", "source", "target", "strength", *protocol.CYCLE_COLUMNS, *_OF_AGES)


class Judged(NamedTuple):
    """Judged faces.

    Arguments:
        rows: one row a judged face; see `ageflow.evaluation.protocol`.
        about: where they come from: method, dataset, run, preset, evaluated (date), embedder, faces, identities,
            bounds (of the age groups) and the fingerprints of faces, weights and judges.
    """

    rows: pd.DataFrame
    about: dict[str, Any]


def file_of(name: str) -> str:
    """What a method's file is called: its name, or of one that names no file its letters and its digest."""
    return name if re.fullmatch(r"[\w+. -]+", name) else f"{re.sub(r'[^A-Za-z0-9]+', '_', name)[-40:]}-{digest(name)}"


def write_judged(folder: Path, name: str, rows: pd.DataFrame, about: dict[str, Any]) -> Judged:
    """Keep judged faces as ``<name>.parquet`` (`file_of`), whole or not at all; `about` goes into the file's own metadata."""
    noted = rows.copy(deep=False)
    noted.attrs = about
    with atomic_file(folder / f"{file_of(name)}.parquet") as file:
        noted.to_parquet(file, index=False, compression="zstd")
    return read_judged(folder, name)


def read_judged(folder: Path, name: str) -> Judged:
    """Read what `write_judged` wrote; MissingArtefactError: it is not there, or damaged."""
    with reading(file := folder / f"{file_of(name)}.parquet", "evaluation"):
        rows = pd.read_parquet(file)
    about, rows.attrs = rows.attrs, {}
    return Judged(in_groups(rows, AgeGroups.noted(about)), about)


class Evaluation:
    """The evaluation of a run, kept in ``evaluation/``.

    What was judged from the same faces, weights, judges and settings is not judged again; a stopped evaluation continues.

    Arguments:
        settings: of notebook 06.

    Raises:
        MissingArtefactError: notebook 01 or 05 has not run.
        NotJudgedError: there is no test face.

    Example:
        ``Evaluation(settings).judge_all()``
    """

    def __init__(self, settings: Ablations) -> None:
        self.settings, self.workspace = settings, Workspace.of(settings)
        self.faces = protocol.held_out_faces(settings)
        classifiers = self.workspace.require("classifiers")
        self.judges = Judges.load(classifiers, settings)
        do = "run 05_train_classifiers.ipynb again, with restart=True"
        self.faces.age_groups.require(self.judges.age.age_groups, "the age judge", do)
        self.folder = self.workspace.folder("evaluation")
        self._load, self._lengths = cache(self._loaded), {}
        # What every judgement depends on, that of the real faces, too.
        names = ("age", *self.judges.attributes)
        self.fingerprints = {f"classifiers/{name}": fingerprint(classifiers / name) for name in names} | {
            "faces": self.faces.fingerprint,
            "embedder": self.judges.embedder.fingerprint,
            "features": self.judges.features.fingerprint,
            "chosen": self._choice(settings.evaluation_faces),
            "protocol": "3",  # what is measured and how: a file of another protocol is made again
        }

    def _loaded(self, name: str) -> Method:
        where = self.settings.model_dump(include={"dataset", "run", "runs_root", "device"})
        method = load_method(name, **where)
        if method.reader is not None:
            method.reader = replace(method.reader, known=self._lengths)
        return method

    def judged(self, name: str) -> Judged:
        """A method's translated faces, rows of `protocol.judge_method`, or the real test faces, of `protocol.judge_faces`.

        The real faces are the most that a method can reach, and the scale on which its cosines are read.

        Arguments:
            name: ``real``, or of a method; they are kept as ``<name>.parquet``.

        Raises:
            MissingArtefactError: an earlier notebook has not run; the message says which.
            CheckpointError: the method's parts belong to different GLOWs.
        """
        made_from = self.fingerprints | ({} if name == "real" else self._load(name).weights)

        def make(_: Judged | None) -> tuple[pd.DataFrame, dict[str, Any]]:
            batches = self._batches(made_from, name)
            if name == "real":
                rows = protocol.judge_faces(self.faces, self.judges, batches)
                # KID of a method that leaves every face as it is: the scale to read the methods' on.
                row, target = protocol.other_groups(self.faces)
                return rows, self._kid(rows.iloc[row].assign(target=target), rows)
            real = self.judged("real").rows
            rows = protocol.judge_method(self._load(name), self.faces, self.judges, real, batches)
            asked = {"asked": len(protocol.other_groups(self.faces)[0])}
            return rows.drop(columns="feature"), self._kid(rows, real) | asked

        return self._kept(name, made_from, make)

    def gathered(self, file: str) -> Judged:
        """One measure of every method of the settings that can do it; what was judged from the same is not measured again.

        Arguments:
            file: ``cycle``, `protocol.cycle_errors`; ``continuous``, `protocol.predicted_ages`; or ``strength``, every
                method moving faces less and more of the way: at 1 it is as `judged` has it.
        """
        wanted = getattr(self.settings, f"{file}_faces")
        faces = protocol.spread_evenly(self.faces, wanted, self.settings.seed)
        strengths = sorted({1.0, *self.settings.strengths}) if file == "strength" else [1.0]
        able = [(name, self._load(name)) for name in self.settings.methods if _measurable(file, self._load(name))]
        pairs = [(name, strength) for name, of in able for strength in (strengths if of.adjustable else [1.0])]
        asked = {f"{name} at {strength}" if file == "strength" else name: (name, strength) for name, strength in pairs}
        judges = self.fingerprints | {"of these": self._choice(wanted)}
        made_from = {called: judges | self._load(name).weights for called, (name, _) in asked.items()}

        def make(before: Judged | None) -> tuple[pd.DataFrame, dict[str, Any]]:
            then, parts = before.about.get("fingerprints", {}) if before else {}, []
            for called, (name, strength) in asked.items():
                if then.get(called) == made_from[called]:
                    parts.append(before.rows[(before.rows["method"] == name) & (before.rows["strength"] == strength)])
                else:
                    rows = self._measured(file, name, strength, faces, self._batches(made_from[called], file, called))
                    parts.append(rows.assign(strength=strength))
            return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS), {}

        return self._kept(file, made_from, make)

    def _measured(self, file: str, name: str, strength: float, faces: Faces, batches: protocol.Batches) -> pd.DataFrame:
        method = self._load(name)
        if file == "cycle":
            return protocol.cycle_errors(method, faces, batches)
        if file == "continuous":
            return protocol.predicted_ages(method, faces, self.judges, batches)
        if strength == 1:
            rows = self.judged(name).rows
            return rows[rows["face"].isin(faces.table["face"])]
        judges = replace(self.judges, features=self.judges.second)  # no Inception
        rows = protocol.judge_method(method.at(strength), faces, judges, self.judged("real").rows, batches)
        return rows.drop(columns="feature")

    def judge_all(self) -> pd.DataFrame:
        """Judge the real faces and every method of the settings, by every measure; ``manifest.json`` comes last.

        Returns:
            One row a method, and one for the real faces: age accuracy (%) by the run's classifier and by the second
            judge, cosine, cosine centred on the mean face, the share (%) that the embedder verifies, and the share (%)
            that kept each attribute when aged from the youngest group, over all rows; notebook 07 has them by group,
            with intervals.
            Of the real faces, identity is that of two photos of one person and the rest is what the judges get right.
        """
        settings = self.settings
        for name in settings.methods:  # before hours are spent on the other methods
            self._report_problems(name)
            protocol.pairs_of(self._load(name), self.faces)
        real, methods = self.judged("real"), {name: self.judged(name) for name in settings.methods}
        found = {"real faces": summary(real.rows, "_same")} | {name: summary(of.rows) for name, of in methods.items()}
        evaluated = max(of.about["evaluated"] for of in (real, *methods.values(), *map(self.gathered, GATHERED)))
        details = {"methods": settings.methods, "evaluated": evaluated, "summary": found, "external": settings.external}
        details["titles"] = self.titles
        Manifest(self.fingerprints, fingerprint=digest(details), details=details).write(self.folder)
        return pd.DataFrame(found).T.rename_axis("method")

    def beyond(self) -> pd.DataFrame:
        """What the paper does not measure, of every method of the settings; what `judge_all` kept is only read.

        Returns:
            One row a method: the means of `protocol.cycle_errors`; KID, averaged over the target groups, in a column
            that names whose features it is of; rho, the mean rank correlation of target and predicted age, monotone,
            the share of faces (%) for which it is at least 0.9, and the same by the second judge. The first row is KID
            of the real faces of the other groups: of a method that changes nothing.
        """
        cycles, continuous = (self.gathered(file).rows.groupby("method") for file in ("cycle", "continuous"))
        found = {"faces as they are": _mean_kid(self.judged("real"))}
        for name in self.settings.methods:
            row = _mean_kid(self.judged(name))
            if name in cycles.groups:
                row = cycles.get_group(name)[list(protocol.CYCLE_COLUMNS)].mean().to_dict() | row
            judges = (("predicted_age", ""), ("second_age", "_second")) if name in continuous.groups else ()
            for column, suffix in judges:
                scored = monotonicity(continuous.get_group(name), column)
                row |= {f"rho{suffix}": scored["rho"].mean(), f"monotone{suffix}": 100 * scored["monotone"].mean()}
            found[self.titles[name]] = row
        columns = max(found.values(), key=len)  # not every method can do all
        return pd.DataFrame(found.values(), index=list(found), columns=list(columns)).rename_axis("method")

    def strengths(self) -> pd.DataFrame:
        """Every method of the settings moving faces less and more of the way; what `judge_all` kept is only read.

        Returns:
            One row a method and strength (of `strengths`, and 1): age accuracy (%) by the run's classifier and by the
            second judge, cosine centred on the mean face, and the share (%) that the embedder verifies, each the mean
            of the target groups' means.
        """
        curves = strength_curves(self.gathered("strength").rows).replace({"method": self.titles})
        return curves.set_index(["method", "strength"])

    @cached_property
    def titles(self) -> dict[str, str]:
        """What tables call the methods of the settings; of two that call themselves alike the second gets its name too."""
        taken, titles = {title: name for name, title in METHODS.items()}, {}
        for name in self.settings.methods:
            title = self._load(name).title
            titles[name] = title if taken.setdefault(title, name) == name else f"{title} ({name})"
        return titles

    def _report_problems(self, name: str) -> None:
        """Of a folder of pictures, warn of what is wrong with it, and write down all of it."""
        method, file = self._load(name), self.folder / f"{file_of(name)}.problems.csv"
        file.unlink(missing_ok=True)
        if not isinstance(method, FolderMethod) or (problems := method.problems(self.faces)).empty:
            return
        write_atomically(file, problems.to_csv(index=False).encode())
        kinds = problems["problem"].str.partition(":")[0]
        kinds = kinds.where(kinds.isin(["missing", "extra", "wrongly sized"]), "unreadable")
        named = [f"{len(own)} {kind}, first {', '.join(own[:3])}" for kind, own in problems["file"].groupby(kinds)]
        warnings.warn(f"{method.folder}: {'; '.join(named)}; the rest is judged, and {file} names all", stacklevel=3)

    def _kept(self, file: str, made_from: dict[str, Any], make: Callable[[Judged | None], tuple]) -> Judged:
        """What a file holds, if it was made from the same; otherwise what `make` makes, given what is there."""
        judged = None
        with contextlib.suppress(MissingArtefactError):
            judged = read_judged(self.folder, file)
        if judged is None or judged.about.get("fingerprints") != made_from:
            rows, more = make(judged)
            about = self.settings.model_dump(include={"dataset", "run", "preset", "external"}) | {
                "method": file,
                "evaluated": datetime.now(UTC).isoformat(timespec="seconds"),
                "embedder": self.judges.embedder.name,
                "threshold": self.judges.embedder.threshold,
                "faces": rows["face"].nunique(),
                "identities": rows["identity"].nunique(),
                "bounds": list(self.faces.age_groups.bounds),
                "fingerprints": made_from,
            }
            judged = write_judged(self.folder, file, rows, about | more)
        shutil.rmtree(self.folder / f"{file_of(file)}.parts", ignore_errors=True)
        return judged

    def _batches(self, made_from: dict[str, str], file: str, part: str = "") -> protocol.Batches:
        """Batches of a file or of a part of it, kept in ``<file>.parts`` until it is written."""
        folder, size = self.folder / f"{file_of(file)}.parts" / (part and file_of(part)), self.settings.evaluation_batch
        return protocol.in_batches(folder, made_from, size, f"{file} {part}", self.settings.progress)

    def _choice(self, wanted: int | None) -> str:
        return "all" if wanted is None else f"{wanted} by seed {self.settings.seed}"

    def _kid(self, rows: pd.DataFrame, real: pd.DataFrame) -> dict[str, Any]:
        kid = kid_by_group(rows, real, len(self.faces.age_groups), self.settings.seed)
        return {"features": self.judges.features.kid, "kid": kid}


def _mean_kid(judged: Judged) -> dict[str, float]:
    return {judged.about["features"]: pd.DataFrame(judged.about["kid"])["kid"].mean()}


def _measurable(file: str, method: Method) -> bool:
    """Whether a method can do what a file of `GATHERED` measures: a folder goes nowhere from a picture of its own."""
    ways = method.pairs
    if file == "cycle":
        return method.live and (ways is None or any((target, source) in ways for source, target in ways))
    return file == "strength" or (method.live and method.continuous and ways is None)
