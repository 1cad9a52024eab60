#!/usr/bin/env bash
# Guessed: to_datetime reads '1/5/70' as 1970, with a format or without. Seen: without one, or with "mixed", it is
#     2070; with "%m/%d/%y" it is 1970. The turn is at fifty years from now in the one, at 69 in the other
# Versions: pandas 3.1.1 (in 2026)
# For a user: birthdays of a table m/d/yy make ages of people who are not born; and a script gives other birthdays
#     next year. Give the format, then take 100 years off what lies after the photograph
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=2
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check pandas==3.1.1 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import datetime
import warnings

import pandas as pd

warnings.simplefilter("ignore")  # of formats that it cannot infer


def year(written: str, **how: str) -> int:
    return int(pd.to_datetime([written], **how).year[0])


turn = datetime.date.today().year + 50 - 2000  # the first two digits that are read as 19..
print(f"pandas {pd.__version__}, in {datetime.date.today().year}:")
for digits in (62, 68, 69, turn - 1, turn, 85):
    guessed, mixed, given = (year(f"1/5/{digits}", **how) for how in ({}, {"format": "mixed"}, {"format": "%m/%d/%y"}))
    print(f"1/5/{digits}: {guessed}, as mixed {mixed}, by its format {given}")
    assert guessed == mixed == (2000 if digits < turn else 1900) + digits
    assert given == (2000 if digits < 69 else 1900) + digits
PYTHON
