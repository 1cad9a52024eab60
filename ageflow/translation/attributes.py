"""Attributes as a caller gives them, as the averages know them."""

import warnings
from collections.abc import Mapping, Sequence

import pandas as pd

from ageflow.data.records import GENDERS


def attribute_values(
    attributes: Mapping[str, Sequence] | pd.DataFrame,
    names: Sequence[str],
    combinations: Sequence[tuple[str, ...]],
    count: int,
) -> list[tuple[str | None, ...]]:
    """Each face's values of the attributes `names`, [count]; None where one is missing or of no training face.

    Arguments:
        attributes: by name, one value a face, or one string or None for all; None, NaN and "" are missing, and what
            differs from a training face's value in its letters' case only, or in spaces around it, is that value.
        names: the attributes that are needed, in the order of the combinations' values.
        combinations: those of the training faces. Of a value that is in none a warning tells.
        count: how many faces.

    Raises:
        ValueError: an attribute that is needed is not given, or not for each face; or a gender that is neither female
            nor male.

    Example:
        >>> attribute_values({"race": ["White", None]}, ["race"], [("black",), ("white",)], 2)
        [('white',), (None,)]
    """
    missing = [name for name in names if name not in attributes]
    if missing:
        raise ValueError(f"attributes {missing} are needed (the prototypes hold {list(names)})")
    told = []
    for place, name in enumerate(names):
        given = attributes[name]
        given = [given] * count if given is None or isinstance(given, str) else list(given)
        if len(given) != count:
            raise ValueError(f"attributes[{name!r}] has {len(given)} entries for {count} faces: one a face")
        given = [None if pd.isna(value) or value == "" else value for value in given]
        meant = _meant(name, given, sorted({combination[place] for combination in combinations}))
        told.append([meant.get(value) for value in given])
    return list(zip(*told, strict=True))


def _meant(name: str, given: Sequence[object], known: Sequence[str]) -> dict[object, str]:
    """The training faces' value of each given one; a misspelt gender is refused, a new value told."""
    alike = {value.strip().casefold(): value for value in known}
    meant: dict[object, str] = {}
    for value in dict.fromkeys(value for value in given if value is not None):
        if name == "gender" and value not in GENDERS:
            raise ValueError(
                f"attributes[{name!r}] = {value!r}: expected {', '.join(GENDERS)}, or None where it is unknown"
            )
        if value in known or str(value).strip().casefold() in alike:
            meant[value] = value if value in known else alike[str(value).strip().casefold()]
            continue
        warnings.warn(
            f"attributes[{name!r}] = {value!r} is of no training face (these are {', '.join(known)}): the age group's "
            "average whatever the attributes is taken",
            stacklevel=4,
        )
    return meant
