"""The protocol's numbers (3.3) from judged faces: rows of identity, group (the target) and value, for intervals.

Age accuracy: the share of translated faces that the age classifier puts into the exact target group. Attribute
preservation: is the face still of its gender and race (Tables 2 and 4)? Identity: the cosines. Two that the paper does
not measure: monotonicity, does the predicted age rise with the age that is asked for; and KID, how far the translated
faces lie, as a crowd, from real faces of the group they were translated to.

The kernel inception distance (Bińkowski et al. 2018, "Demystifying MMD GANs") is an unbiased estimate of the squared
maximum mean discrepancy between two crowds in a network's features, 0 where they are drawn alike. It is computed by
torch-fidelity. What KID is published with, InceptionV3, is weights that torch-fidelity downloads: who has the file
names it (`inception`). Otherwise the features are the second age judge's, which are about faces, come with the kit,
and are the same in every run. **The two are different scales**: the metric's name says whose features it is of
(``kid_face_api`` or ``kid_inception``), and only the second can be compared with published numbers.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

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


def agreement_scores(judged: pd.DataFrame) -> pd.DataFrame:
    """Whether both age judges see the same group (100, else 0), whichever it is."""
    return _scores(judged, 100.0 * (judged["predicted"] == age_group(judged["second_age"].to_numpy())))


def identity_scores(judged: pd.DataFrame, column: str = "cosine") -> pd.DataFrame:
    """A column about input and output: ``cosine``, ``cosine_centred``, or ``verified`` (in %); laid out alike."""
    return _scores(judged, 100.0 * judged[column] if column.startswith("verified") else judged[column])


def judged_attributes(judged: pd.DataFrame) -> list[str]:
    """The attributes that a classifier judged: columns that come with their ``<name>_predicted``."""
    return [name.removesuffix(_PREDICTED) for name in judged.columns if name.endswith(_PREDICTED)]


def attribute_scores(judged: pd.DataFrame, attribute: str, source: int | None = 0) -> pd.DataFrame:
    """Whether each face that was aged from one group kept an attribute.

    The classifier's answer on the translated face is compared with the face's own label, as the age is with its
    target; what the classifier reaches on the real test faces is the most that a method can be expected to.

    Arguments:
        judged: rows of `ageflow.evaluation.evaluate`.
        attribute: a column of it, ``gender`` or ``race``, with its ``<attribute>_predicted``.
        source: the group to start from, None: all; the paper reports 30-, the hardest.

    Returns:
        One row a translated face that has a label the classifier was asked about: identity, group (the target),
        value (100 where kept, else 0).

    Raises:
        KeyError: no classifier judged this attribute.
    """
    if attribute not in (known := judged_attributes(judged)):
        raise KeyError(f"attribute {attribute!r} was not judged; judged were: {', '.join(known) or 'none'}")
    rows = judged.dropna(subset=[attribute, attribute + _PREDICTED])
    rows = rows if source is None else rows[rows["source"] == source]
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
    faces = once.groupby(keys, sort=False)[["asked", "predicted"]]
    rho = faces.apply(lambda own: own.corr("spearman").iloc[0, 1]).fillna(0.0).round(6)
    return rho.reset_index(name="rho").assign(monotone=lambda scored: scored["rho"] >= MONOTONE)


def by_group(rows: pd.DataFrame) -> pd.DataFrame:
    """Judged faces summed up by target group: faces, mean cosines, and the rest in %; attributes of faces of every group."""
    identity = {name: name for name in rows.columns if name.startswith(("cosine", "verified"))}
    groups = _measured(rows, identity).groupby(rows["target"].to_numpy())
    summed = pd.concat([groups.size().rename("faces"), groups.mean()], axis=1)
    return summed.rename(index=dict(enumerate(AGE_GROUPS))).rename_axis("group").round(3)


def strength_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """What each method reaches and keeps at each strength.

    Arguments:
        rows: of ``strength.parquet``, of all methods and strengths.

    Returns:
        Columns method, strength, age_accuracy and second_accuracy (%), cosine_centred and verified (%): the means of the
        target groups' means; methods in the order of `METHODS`, then others, strengths rising.
    """
    columns = ["age_accuracy", "second_accuracy", "cosine_centred", "verified"]
    return pd.DataFrame(
        {"method": method, "strength": float(strength), **by_group(own)[columns].mean()}
        for method in dict.fromkeys([*METHODS, *rows["method"]])
        for strength, own in rows[rows["method"] == method].groupby("strength")
    )


def summary(rows: pd.DataFrame, suffix: str = "") -> dict[str, float | None]:
    """The means over all rows, of attributes over those of 30-; None where there is nothing to average.

    Arguments:
        rows: of a method, or of the real faces.
        suffix: of the identity's columns: ``_same`` for two photos of one person, of the real faces.
    """
    means = _measured(rows, {name: name + suffix for name in ("cosine", "cosine_centred", "verified")}, 0).mean()
    return {name: None if pd.isna(mean) else round(float(mean), 4) for name, mean in means.items()}


def kernel_distance(first: Tensor, second: Tensor, seed: int = 0) -> tuple[float, float]:
    """KID of two crowds' features [N,f] and [M,f].

    Returns:
        The mean and the standard deviation over 100 seeded draws of equally many of both: of 1000 (the paper's), or of
        all that the smaller crowd has; NaN where a crowd has fewer than two.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric  # slow

    size = min(len(first), len(second), 1000)
    if size < 2:
        return float("nan"), float("nan")
    drawn = {"kid_subsets": 100, "kid_subset_size": size, "rng_seed": seed, "verbose": False}
    found = kid_features_to_metric(first.double(), second.double(), **drawn)
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


def kid_by_group(rows: pd.DataFrame, real: pd.DataFrame, seed: int = 0) -> list[dict[str, float]]:
    """KID of translated faces against the real test faces of their target group.

    The people are the same on both sides as far as they have a photo of that group: what is measured is whether the
    crowd looks alike, and no one is compared with himself.

    Arguments:
        rows: of translated faces; target and feature [f].
        real: of the real test faces, the same.
        seed: of the draws.

    Returns:
        One row a group: target, kid, spread (standard deviation over the draws), faces.
    """
    found = []
    for target in range(len(AGE_GROUPS)):
        made, own = (vectors(each.loc[each["target"] == target, "feature"]) for each in (rows, real))
        kid, spread = kernel_distance(made, own, seed)
        found.append({"target": target, "kid": kid, "spread": spread, "faces": len(made)})
    return found


def vectors(column: pd.Series) -> Tensor:
    """A column of vectors as a tensor, float32 [rows, d]."""
    return torch.from_numpy(np.array(column.to_list(), dtype=np.float32))


def _measured(rows: pd.DataFrame, identity: dict[str, str], source: int | None = None) -> pd.DataFrame:
    """What each row scores by every measure; `identity` are the columns of `identity_scores`, by what they are called."""
    rows = rows.reset_index(drop=True)
    found = {"age_accuracy": age_scores(rows), "second_accuracy": second_age_scores(rows)}
    found |= {name: identity_scores(rows, column) for name, column in identity.items()}
    found |= {name: attribute_scores(rows, name, source) for name in judged_attributes(rows)}
    return pd.DataFrame({name: scored["value"] for name, scored in found.items()})


def _scores(judged: pd.DataFrame, value: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"identity": judged["identity"], "group": judged["target"], "value": value})
