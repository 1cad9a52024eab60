"""The parameter `columns` of notebook 01: where a table of one's own has what the kit asks for.

``file=file_name, age=real_age``
    the kit's name of a column, then the table's.
``file=faces/{user_id}/{image}, identity=user_id``
    text with columns in braces; ``{number:5}`` has zeros before it, up to five digits.
``name={}_{identity}_{age}_{gender}``
    for pictures without a table: the parts of a file's name, ``{}`` what is not needed.
"""

import re
from collections.abc import Mapping

from ageflow.config import ParameterError, nearest
from ageflow.data.pictures import any_ending

OWN = ("file", "identity", "age", "gender", "race", "split", "birth", "taken")
_BRACES = r"\{([^{}:]*)(?::(\d+))?\}"


def parsed(text: str | None) -> dict[str, str]:
    """The table's column, or text with columns in braces, by our name; in lower case.

    Raises:
        ParameterError: a name that is none of ours, stands twice or for nothing, or lacks the one that belongs to it.
    """
    pairs = [pair.partition("=") for pair in re.split(r",(?=[^,=]*=)", text.casefold())] if text else []
    found = {own.strip(): theirs.strip() for own, _, theirs in pairs}
    problems = [f"{own!r} is none of {', '.join(OWN)}{nearest(own, OWN)}" for own in found if own not in (*OWN, "name")]
    problems += [f"{own!r} stands for no column" for own, theirs in found.items() if not theirs]
    problems += ["a name stands twice"] if len(found) < len(pairs) else []
    problems += ["name stands alone"] if "name" in found and len(found) > 1 else []
    problems += ["an age takes both birth and taken"] if ("birth" in found) != ("taken" in found) else []
    if problems:
        raise ParameterError(f"columns = {text!r}: {problems[0]}; expected such as 'file=file_name, age=real_age'")
    return found


def needed(source: str) -> list[str]:
    """The table's columns that a column of ours is made of."""
    return [name for name, _ in re.findall(_BRACES, source)] or [source]


def filled(source: str, row: Mapping[str, str]) -> str:
    """A row's value of a column of ours.

    Example:
        >>> filled("{number:5}.png", {"number": "7"}), filled("age", {"age": "34"})
        ('00007.png', '34')
    """
    if source in row:
        return row[source]
    return re.sub(_BRACES, lambda found: row[found[1]].zfill(int(found[2] or 0)), source)


def name_pattern(form: str) -> str:
    """A regular expression of a file's name without its ending, with a group for each part that has a name.

    Raises:
        ParameterError: a part that is none of ours, stands twice, or none at all.
    """
    *parts, end = re.split(_BRACES, any_ending(form))
    texts, names = parts[::3], parts[1::3]
    known = [name for name in names if name]
    if wrong := [name for name in known if name not in OWN[1:] or known.count(name) > 1] or (not known and [form]):
        problem = f"{wrong[0]!r} is not, once, one of {', '.join(OWN[1:])}"
        raise ParameterError(f"columns = 'name={form}': {problem}; expected such as 'name={{}}_{{identity}}_{{age}}'")
    groups = [f"(?P<{name}>{r'[0-9]+' if name == 'age' else '.+?'})" if name else ".+?" for name in names]
    return "".join(re.escape(text) + group for text, group in zip(texts, groups, strict=True)) + re.escape(end)
