"""The protocol's numbers (3.3) from judged faces: rows of identity, group (the target) and value, for intervals.

Age accuracy: the share of translated faces that the age classifier puts into the exact target group. Attribute
preservation: is the face still of its gender and race (Tables 2 and 4)? Identity: the cosines. Monotonicity, which the
paper does not measure: does the predicted age rise with the age that is asked for?
"""

import pandas as pd
from scipy.stats import spearmanr

from ageflow.data.records import AGE_GROUPS, age_group
from ageflow.translation.ages import GROUP_CENTRES
from ageflow.translation.methods import METHODS

MONOTONE = 0.9  # a face whose rank correlation is at least this counts as monotone
_PREDICTED = "_predicted"


def age_scores(judged: pd.DataFrame) -> pd.DataFrame:
    """Whether each translated face landed in its target group.

    Arguments:
        judged: rows of `ageflow.evaluation.evaluate`: identity, target, predicted (group numbers).

    Returns:
        One row a translated face: identity, group (the target), value (100 where it landed, else 0), so that the
        mean over a group is the paper's age accuracy in %.

    Example:
        >>> judged = pd.DataFrame({"identity": ["a", "a"], "target": [1, 2], "predicted": [1, 3]})
        >>> age_scores(judged)["value"].tolist()
        [100.0, 0.0]
    """
    return _scores(judged, 100.0 * (judged["predicted"] == judged["target"]))


def second_age_scores(judged: pd.DataFrame) -> pd.DataFrame:
    """The same by the second age judge, whose years (column second_age) are put into their group."""
    return age_scores(judged.assign(predicted=age_group(judged["second_age"].to_numpy())))


def identity_scores(judged: pd.DataFrame, column: str = "cosine") -> pd.DataFrame:
    """A column about input and output: ``cosine``, ``cosine_centred``, or ``verified`` (in %); laid out alike."""
    return _scores(judged, 100.0 * judged[column] if column.startswith("verified") else judged[column])


def judged_attributes(judged: pd.DataFrame) -> list[str]:
    """The attributes that a classifier judged: columns that come with their ``<name>_predicted``."""
    return [name.removesuffix(_PREDICTED) for name in judged.columns if name.endswith(_PREDICTED)]


def attribute_scores(judged: pd.DataFrame, attribute: str, source: int = 0) -> pd.DataFrame:
    """Whether each face that was aged from one group kept an attribute.

    The classifier's answer on the translated face is compared with the face's own label, as the age is with its
    target; what the classifier reaches on the real test faces is the most that a method can be expected to.

    Arguments:
        judged: rows of `ageflow.evaluation.evaluate`.
        attribute: a column of it, ``gender`` or ``race``, with its ``<attribute>_predicted``.
        source: the group to start from; the paper reports 30-, the hardest.

    Returns:
        One row a translated face that has a label the classifier was asked about: identity, group (the target),
        value (100 where kept, else 0).

    Raises:
        KeyError: no classifier judged this attribute.
    """
    known = judged_attributes(judged)
    if attribute not in known:
        raise KeyError(f"attribute {attribute!r} was not judged; judged were: {', '.join(known) or 'none'}")
    predicted = judged[attribute + _PREDICTED]
    rows = judged[(judged["source"] == source) & judged[attribute].notna() & predicted.notna()]
    return _scores(rows, 100.0 * (rows[attribute + _PREDICTED] == rows[attribute]))


def monotonicity(rows: pd.DataFrame, column: str = "predicted_age") -> pd.DataFrame:
    """Spearman's rank correlation of target and predicted age, face by face.

    Below the first group's centre and beyond the last one's a target is the outer group alone: such stops are one
    and the same translation, and count once.

    Arguments:
        rows: of `ageflow.evaluation.protocol.predicted_ages`.
        column: ``predicted_age`` or ``second_age``.

    Returns:
        One row a method and face: method, face, identity, source, rho (0 where all predictions are the same: such
        a face does not age) and monotone (bool: rho is at least `MONOTONE`).

    Example:
        >>> ages = {"target_age": [25.0, 40.0, 50.0], "predicted_age": [31.0, 35.0, 44.0]}
        >>> monotonicity(pd.DataFrame({"method": "m", "face": "f", "identity": "i", "source": 0} | ages))["rho"].tolist()
        [1.0]
    """
    keys = ["method", "face", "identity", "source"]
    asked = rows["target_age"].clip(GROUP_CENTRES[0], GROUP_CENTRES[-1])
    # A picture in another batch differs in the last bits: that is no age.
    once = rows.assign(asked=asked, predicted=rows[column].round(3)).drop_duplicates([*keys, "asked"])
    found = []
    for names, own in once.groupby(keys, sort=False):
        rho = spearmanr(own["asked"], own["predicted"]).statistic if own["predicted"].nunique() > 1 else 0.0
        found.append([*names, round(float(rho), 6)])
    return pd.DataFrame(found, columns=[*keys, "rho"]).assign(monotone=lambda scored: scored["rho"] >= MONOTONE)


def by_group(rows: pd.DataFrame) -> pd.DataFrame:
    """Judged faces summed up by target group: faces, mean cosines, and the rest in %."""
    found = pd.DataFrame({"target": rows["target"], "age_accuracy": age_scores(rows)["value"]})
    for name in judged_attributes(rows):
        # of faces of every group, where the tables' attribute preservation starts from 30- only
        predicted = rows[name + _PREDICTED]
        found[name] = 100.0 * (predicted == rows[name]).where(predicted.notna())
    found["second_accuracy"] = second_age_scores(rows)["value"]
    for name in [name for name in rows.columns if name.startswith(("cosine", "verified"))]:
        found[name] = identity_scores(rows, name)["value"]
    groups = found.groupby("target")
    summed = pd.concat([groups.size().rename("faces"), groups.mean()], axis=1)
    return summed.rename(index=dict(enumerate(AGE_GROUPS))).rename_axis("group").round(3)


def strength_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """What each method reaches and keeps at each strength.

    Arguments:
        rows: of `ageflow.evaluation.evaluate.Evaluation.strengths`, of all methods and strengths.

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


def summary(rows: pd.DataFrame, suffix: str = "") -> dict[str, float | None]:
    """The means over all rows; None where there is nothing to average.

    Arguments:
        rows: of a method, or of the real faces.
        suffix: of the identity's columns: ``_same`` for two photos of one person, of the real faces.
    """
    found = {"age_accuracy": age_scores(rows), "second_accuracy": second_age_scores(rows)}
    found |= {name: identity_scores(rows, name + suffix) for name in ("cosine", "cosine_centred", "verified")}
    found |= {name: attribute_scores(rows, name) for name in judged_attributes(rows)}
    means = {name: scored["value"].mean() for name, scored in found.items()}
    return {name: None if pd.isna(mean) else round(float(mean), 4) for name, mean in means.items()}


def _scores(judged: pd.DataFrame, value: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"identity": judged["identity"], "group": judged["target"], "value": value})
