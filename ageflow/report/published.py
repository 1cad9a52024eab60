"""The numbers of the paper's Tables 1-4, from ``published.csv``.

Age accuracy and attribute preservation are in %, cosines as they are. Tables 1 and 3 have a column for each target
group, Tables 2 and 4 for the groups that faces of 30- are aged to.
"""

from importlib import resources

import pandas as pd

from ageflow.data.records import AGE_GROUPS

PAPER_DATASETS = ("morph", "cacd")
_KEYS = ["dataset", "metric", "method"]


def published(table: int) -> pd.DataFrame:
    """The paper's numbers of one table, long.

    Arguments:
        table: 1 to 4.

    Returns:
        One row a number: dataset (``morph``, ``cacd``), metric (``age_accuracy``, ``cosine``, ``gender``, ``race``),
        method, group (number of the target group), value.

    Example:
        >>> numbers = published(1).set_index(["dataset", "metric", "method", "group"])["value"]
        >>> float(numbers["cacd", "cosine", "AgeFlow", 3])
        0.847
    """
    with resources.files("ageflow.report").joinpath("published.csv").open() as file:
        wide = pd.read_csv(file).rename(columns={name: group for group, name in enumerate(AGE_GROUPS)})
    wide = wide[wide.pop("table") == table]
    if wide.empty:
        raise ValueError(f"table {table!r}: the paper has Tables 1 to 4")
    long = wide.melt(_KEYS, var_name="group", ignore_index=False).sort_index(kind="stable").dropna()
    return long.astype({"group": int}).reset_index(drop=True)
