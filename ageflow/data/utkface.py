"""UTKFace: over 20,000 faces from 0 to 116 years, free for research (https://susanqq.github.io/UTKFace/).

::

    UTKFace/25_0_2_20170116174525125.jpg             age, gender (0 male, 1 female), race, date and time
    UTKFace/25_0_2_20170116174525125.jpg.chip.jpg    of the aligned and cropped set

Race is 0 white, 1 black, 2 Asian, 3 Indian, 4 other. In a few names a field is missing; the labels of those are not
known, and they are turned away. Only age, gender and race are read, so a fault behind them does no harm.
The set names nobody: every picture counts as a person of its own.
"""

import re

import pandas as pd

from ageflow.config import PrepareData
from ageflow.data.files import list_files, picture_folder
from ageflow.data.matching import named
from ageflow.data.records import COLUMNS, Reading

# A date has 17 digits: what stands in the place of gender or race must have one.
NAME = re.compile(r"(?P<age>-?\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d+.*\.(jpe?g|png)", re.IGNORECASE)
RACES = ("white", "black", "asian", "indian", "other")
_FORM = "age_gender_race_time with gender 0 or 1 and race 0 to 4, as in 25_0_2_20170116174525125.jpg"
_EXPECTED = "the folder UTKFace (25_0_2_20170116174525125.jpg …), or the folders part1, part2 and part3"


def read(settings: PrepareData) -> Reading:
    """The table of UTKFace.

    Arguments:
        settings: `data_root`: the folder of the pictures, or the one above it.

    Raises:
        ParameterError: the pictures are not there.
    """
    pictures = picture_folder(settings, ("utkface",), _EXPECTED, nested=True)
    listing = list_files(pictures, pictures, settings.data_root)
    table, left = named(listing, NAME, _FORM)
    table["gender"] = table["gender"].map({"0": "male", "1": "female"})
    table["race"] = table["race"].map(lambda number: RACES[int(number)])
    records = pd.DataFrame(table.assign(identity=None, source="utkface"), columns=list(COLUMNS))
    notes = [
        "Ages, genders and races are those in the files' names, most of them estimated and checked by people.",
        *listing.notes,
    ]
    return Reading(records, pictures, left, notes=notes, identities=False)
