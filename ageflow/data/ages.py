"""Ages as people write them: numbers, with a unit or a decimal comma, and ranges."""

import re

_NUMBER, _UNIT = r"(\d{1,3}(?:[.,]\d+)?)", r"(?: ?(?:years?|yrs?|y|yo|y/o)\.?(?: old)?)?"
_NO_END = 999.0
# Each with the ends of the range, from its numbers.
_FORMS = (
    (rf"{_NUMBER}{_UNIT}", lambda age: (age, age)),
    (rf"[(\[]? ?{_NUMBER} ?(?:-|–|to|, ) ?{_NUMBER} ?[)\]]?{_UNIT}", lambda low, high: (low, high)),
    (r"[(\[](\d+),(\d+)[)\]]", lambda low, high: (low, high)),
    (rf"(?:more than|over|above|>=?) ?{_NUMBER}{_UNIT}", lambda low: (low, _NO_END)),
    (rf"{_NUMBER}{_UNIT} ?(?:\+|(?:and|or) (?:over|above|older|more))", lambda low: (low, _NO_END)),
    (rf"(?:less than|under|below|<) ?{_NUMBER}{_UNIT}", lambda high: (0.0, high - 1)),
)


def years(text: str) -> tuple[float, float] | None:
    """The youngest and the oldest that is meant; None where it is not known.

    Example:
        >>> years("34,5"), years("34 years"), years("(25, 32)"), years("more than 70"), years("9-Mar")
        ((34.5, 34.5), (34.0, 34.0), (25.0, 32.0), (70.0, 999.0), None)
    """
    text = " ".join(text.casefold().split())
    for form, ends in _FORMS:
        if found := re.fullmatch(form, text):
            low, high = ends(*(float(number.replace(",", ".")) for number in found.groups()))
            return (low, high) if low <= high else None
    return None


def shown(low: float, high: float) -> float:
    """The age that stands for a range: its middle, or the end that it has."""
    return low if high == _NO_END else (low + high) / 2
