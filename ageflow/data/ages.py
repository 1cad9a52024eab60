"""Ages as people write them: numbers, with a unit or a decimal comma, ranges, and what two dates say."""

import re
from datetime import date

_NUMBER, _UNIT = r"(\d{1,3}(?:[.,]\d+)?)", r"(?: ?(?:years?|yrs?|y|yo|y/o)\.?(?: old)?)?"
_NO_END = 999.0
_DATE = r"(?P<year>\d{4})(?:-(?P<month>\d\d?)-(?P<day>\d\d?)(?:[ T].*)?)?"
_DATES = (_DATE, r"(?P<month>\d\d?)/(?P<day>\d\d?)/(?P<year>\d{4})")  # MORPH's are American
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


def between(birth: str, taken: str) -> int | None:
    """Completed years from one date to another: ``1950-01-31``, ``1/31/1950`` (month first) or the year alone.

    Of a year alone, the birthday counts as past. None where either is no such date.

    Example:
        >>> between("1950-06-30", "6/29/1990"), between("1950", "1990-01-01"), between("2001", "1990"), between("1950", "?")
        (39, 40, -11, None)
    """
    parts = [_date(text.strip()) for text in (birth, taken)]
    if None in parts:
        return None
    (born, *day), (year, *then) = parts
    return year - born - (bool(day and then) and then < day)


def _date(text: str) -> tuple[int, ...] | None:
    """Year, month, day, or the year alone."""
    found = next((found for form in _DATES if (found := re.fullmatch(form, text))), None)
    parts = tuple(int(found[name]) for name in ("year", "month", "day") if found[name]) if found else ()
    try:
        date(*parts, *(1, 1)[: 3 - len(parts)])
    except (TypeError, ValueError):
        return None
    return parts
