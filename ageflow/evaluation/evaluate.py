"""The paper's protocol (3.3): every test face into the other three groups, judged by classifiers and an embedder.

`evaluate_real` puts the real test faces before the same judges: that is the most a method can reach, and the scale
its cosines are read on. `evaluate_beyond` has what the paper does not measure: whether a face comes back, whether
translated faces as a crowd are like real ones, and whether the age rises with the age that is asked for.
"""

import pandas as pd

from ageflow.config import Ablations
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.age import age_scores, second_age_scores
from ageflow.evaluation.attributes import attribute_scores, judged_attributes
from ageflow.evaluation.continuous import monotonicity
from ageflow.evaluation.cycle import CYCLE_COLUMNS
from ageflow.evaluation.judged import Judged
from ageflow.evaluation.session import Evaluation
from ageflow.run import Manifest, digest
from ageflow.translation.methods import METHODS


def evaluate_real(settings: Ablations) -> Judged:
    """The real test faces before the judges, kept as ``evaluation/real.parquet``: made once, then read.

    Returns:
        The rows of `ageflow.evaluation.judging.judge_faces`.

    Raises:
        MissingArtefactError: notebook 01 or 05 has not run.
        NotJudgedError: there is no test face.
    """
    return Evaluation(settings).real.judged


def evaluate(settings: Ablations, method_name: str) -> pd.DataFrame:
    """Judge one method on the test split and keep the rows as ``evaluation/<method>.parquet``.

    Nothing is computed where that file is there and was made from the same faces, weights, judges and settings.
    Stopped, it goes on where it was.

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
    return Evaluation(settings).method(method_name).rows


def evaluate_all(settings: Ablations) -> pd.DataFrame:
    """Judge the real faces and every method of `settings`; ``evaluation/manifest.json`` is written last.

    Stopped, it goes on where it was; what is judged so far lies in ``evaluation/parts``.

    Returns:
        One row a method, and one for the real faces: age accuracy (%) by the run's classifier and by the second
        judge, cosine, cosine centred on the mean face, the share (%) that the embedder verifies, and the share (%)
        that kept each attribute when aged from 30-, over all rows; notebook 07 has them by group, with intervals.
        Of the real faces, identity is that of two photos of one person and the rest is what the judges get right.
    """
    evaluation = Evaluation(settings)
    real = evaluation.real.judged
    summary = {"real faces": _summary(real.rows, "_same")}
    dates = [real.about["evaluated"]]
    for name in settings.methods:
        judged = evaluation.method(name)
        summary[name] = _summary(judged.rows)
        dates.append(judged.about["evaluated"])
    beyond = (evaluation.cycles(), evaluation.continuous(), evaluation.strengths())
    dates += [judged.about["evaluated"] for judged in beyond]
    done = {"methods": list(settings.methods), "evaluated": max(dates), "summary": summary}
    if settings.external is not None:
        done["external"] = settings.external
    Manifest(evaluation.fingerprints, fingerprint=digest(done), details=done).write(evaluation.folder)
    return pd.DataFrame(summary).T.rename_axis("method")


def evaluate_beyond(settings: Ablations) -> pd.DataFrame:
    """What the paper does not measure, of every method of `settings`; what is kept from `evaluate_all` is only read.

    Returns:
        One row a method: the means of `ageflow.evaluation.cycle.cycle_errors`; KID, averaged over the target groups,
        in a column that names whose features it is of; rho, the mean rank correlation of target and predicted age,
        monotone, the share of faces (%) for which it is at least 0.9, and the same in the second judge's eyes. The
        first row is KID of the real faces of the other groups: of a method that changes nothing.
    """
    evaluation = Evaluation(settings)
    cycles, continuous = (part.rows.groupby("method") for part in (evaluation.cycles(), evaluation.continuous()))
    found = {"faces as they are": _kid(evaluation.real.judged)}
    for name in settings.methods:
        row = cycles.get_group(name)[list(CYCLE_COLUMNS)].mean().to_dict() | _kid(evaluation.method(name))
        for column, suffix in (("predicted_age", ""), ("second_age", "_second")):
            told = monotonicity(continuous.get_group(name), column)
            row |= {f"rho{suffix}": told["rho"].mean(), f"monotone{suffix}": 100 * told["monotone"].mean()}
        found[METHODS[name]] = row
    columns = list(found[METHODS[settings.methods[-1]]])
    return pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis("method")


def evaluate_strengths(settings: Ablations) -> pd.DataFrame:
    """Every method of `settings` moving faces less and more of the way; what is kept from `evaluate_all` is only read.

    Returns:
        One row a method and strength (of `strengths`, and 1): age accuracy (%) by the run's classifier and by the
        second judge, cosine centred on the mean face, and the share (%) that the embedder verifies, each the mean of
        the target groups' means.
    """
    curves = strength_curves(Evaluation(settings).strengths().rows)
    return curves.assign(method=curves["method"].map(METHODS)).set_index(["method", "strength"])


def strength_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """What each method reaches and keeps at each strength.

    Arguments:
        rows: of `ageflow.evaluation.session.Evaluation.strengths`, of all methods and strengths.

    Returns:
        Columns method, strength, age_accuracy and second_accuracy (%), cosine_centred and verified (%): the means of the
        target groups' means; methods in the order of `METHODS`, strengths rising.
    """
    columns = ["age_accuracy", "second_accuracy", "cosine_centred", "verified"]
    found = []
    for method in METHODS:
        for strength, own in rows[rows["method"] == method].groupby("strength"):
            found.append({"method": method, "strength": float(strength), **by_group(own)[columns].mean()})
    return pd.DataFrame(found)


def _kid(judged: Judged) -> dict[str, float]:
    return {judged.about["features"]: pd.DataFrame(judged.about["kid"])["kid"].mean()}


def by_group(rows: pd.DataFrame) -> pd.DataFrame:
    """Judged faces summed up by target group: faces, mean cosines, and the rest in %."""
    told = rows.assign(age_accuracy=age_scores(rows)["value"])
    columns = ["age_accuracy"]
    for name in judged_attributes(rows):
        # of faces of every group, where the tables' attribute preservation starts from 30- only
        told[name] = 100.0 * (rows[f"{name}_predicted"] == rows[name]).where(rows[f"{name}_predicted"].notna())
        columns.append(name)
    told["second_accuracy"] = second_age_scores(rows)["value"]
    columns.append("second_accuracy")
    for name in [name for name in rows.columns if name.startswith(("cosine", "verified"))]:
        told[name] = 100.0 * told[name] if name.startswith("verified") else told[name]
        columns.append(name)
    groups = told.groupby("target")
    summed = pd.concat([groups.size().rename("faces"), groups[columns].mean()], axis=1)
    return summed.rename(index=dict(enumerate(AGE_GROUPS))).rename_axis("group").round(3)


def _summary(rows: pd.DataFrame, suffix: str = "") -> dict[str, float | None]:
    means = {
        "age_accuracy": age_scores(rows)["value"].mean(),
        "second_accuracy": second_age_scores(rows)["value"].mean(),
        "cosine": rows[f"cosine{suffix}"].mean(),
        "cosine_centred": rows[f"cosine_centred{suffix}"].mean(),
        "verified": 100.0 * rows[f"verified{suffix}"].mean(),
    }
    for name in judged_attributes(rows):
        means[name] = attribute_scores(rows, name)["value"].mean()
    return {name: None if pd.isna(mean) else round(float(mean), 4) for name, mean in means.items()}
