"""Attribute preservation: is the face still of its gender and race after ageing (3.3, Tables 2 and 4)?"""

import pandas as pd


def judged_attributes(judged: pd.DataFrame) -> list[str]:
    """The attributes that a classifier judged: columns that come with their ``<name>_predicted``."""
    suffix = "_predicted"
    return [name.removesuffix(suffix) for name in judged.columns if name.endswith(suffix)]


def attribute_scores(judged: pd.DataFrame, attribute: str, source: int = 0) -> pd.DataFrame:
    """Whether each face that was aged from one group kept an attribute.

    The classifier's answer on the translated face is held against the face's own label, as the age is against its
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
    predicted = judged[f"{attribute}_predicted"]
    rows = (judged["source"] == source) & judged[attribute].notna() & predicted.notna()
    kept = predicted[rows] == judged.loc[rows, attribute]
    return pd.DataFrame(
        {"identity": judged.loc[rows, "identity"], "group": judged.loc[rows, "target"], "value": 100.0 * kept}
    )
