"""Training and test halves that share no identity."""

import numpy as np
import pandas as pd

from ageflow.data.records import Reading


def split_as_given(reading: Reading, faces: pd.DataFrame, test_share: float, seed: int) -> pd.Series:
    """Which half each face belongs to: as the data set itself says, or else by `split_by_identity`.

    Who is in the set's training half with one picture is in it with all of them, whatever the set says.

    Arguments:
        reading: what the reader found; its table's column `split`, where there is one, decides.
        faces: one row a face, columns `file`, `identity`, `group` and `gender`.
        test_share, seed: see `split_by_identity`.

    Returns:
        "train" or "test" per row, with the index of `faces`.
    """
    if "split" not in reading.table:
        return split_by_identity(faces, test_share, seed)
    given = faces["file"].map(reading.table.drop_duplicates("file").set_index("file")["split"])
    train = faces["identity"].isin(faces.loc[given == "train", "identity"])
    return pd.Series(np.where(train, "train", "test"), index=faces.index, name="split")


def split_by_identity(table: pd.DataFrame, test_share: float, seed: int) -> pd.Series:
    """Which half each face belongs to, decided identity by identity.

    Identities are put in order of the age groups and genders their faces have, in random order within, and every
    (1/test_share)-th goes to the test half: so each age group and gender keeps the share, to within one identity.

    Arguments:
        table: one row a face, columns `identity` and `group`, and `gender` where it is known.
        test_share: share of the identities to test on, between 0 and 1.
        seed: decides the order within an age group.

    Returns:
        "train" or "test" per row, with the table's index. With two identities or more, neither half is empty.

    Example:
        >>> table = pd.DataFrame({"identity": ["a", "a", "b", "c", "d"], "group": [0, 1, 0, 1, 1]})
        >>> split_by_identity(table, 0.25, seed=0).nunique()
        2
    """
    generator = np.random.default_rng(seed)
    gender = table["gender"].fillna("") if "gender" in table else pd.Series("", index=table.index)
    faces = pd.DataFrame({"identity": table["identity"], "group": table["group"], "gender": gender})
    strata = faces.groupby("identity", sort=True).agg(
        groups=("group", lambda groups: tuple(sorted(set(groups)))), gender=("gender", "first")
    )
    strata["random"] = generator.permutation(len(strata))
    order = strata.sort_values(["gender", "groups", "random"]).index.to_numpy()

    # The k-th identity is tested on where k·share passes a whole number.
    steps = np.floor((np.arange(len(order) + 1) + generator.random()) * test_share)
    tested = np.diff(steps) > 0
    if len(order) > 1 and tested.all():
        tested[generator.integers(len(order))] = False
    if len(order) > 1 and not tested.any():
        tested[generator.integers(len(order))] = True
    test = table["identity"].isin(order[tested])
    return pd.Series(np.where(test, "test", "train"), index=table.index, name="split")
