"""Age accuracy: the share of translated faces that the age classifier puts into the exact target group (3.3)."""

import pandas as pd

from ageflow.data.records import age_group


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
    landed = judged["predicted"] == judged["target"]
    return pd.DataFrame({"identity": judged["identity"], "group": judged["target"], "value": 100.0 * landed})


def second_age_scores(judged: pd.DataFrame) -> pd.DataFrame:
    """The same by the second age judge, whose years are put into their group.

    Arguments:
        judged: rows of `ageflow.evaluation.judging`: identity, target, second_age (years).
    """
    return age_scores(judged.assign(predicted=age_group(judged["second_age"].to_numpy())))
