"""Age accuracy: the share of translated faces that the age classifier puts into the exact target group (3.3)."""

import pandas as pd

__all__ = ["age_scores"]


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
