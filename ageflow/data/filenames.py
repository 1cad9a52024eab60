"""Sets without a table, whose labels are the pictures' names.

FG-NET: 1,002 pictures of 82 subjects, 0 to 69 years (https://yanweifu.github.io/FG_NET_data/)::

    FGNET/images/001A02.JPG      subject, "A", age, and a letter where a subject has two pictures at one age
    FGNET/points/001a02.pts      68 landmarks; not read: MTCNN's points align every set in the same way

Upper and lower case are mixed; some pictures are grey, which become RGB when they are opened. It is a test set of a model
that was trained on another set, so all of it is the test half.

UTKFace: over 20,000 faces from 0 to 116 years, free for research (https://susanqq.github.io/UTKFace/)::

    UTKFace/25_0_2_20170116174525125.jpg             age, gender (0 male, 1 female), race, date and time
    UTKFace/25_0_2_20170116174525125.jpg.chip.jpg    of the aligned and cropped set

Race is 0 white, 1 black, 2 Asian, 3 Indian, 4 other. In a few names a field is missing: those pictures are rejected.
Only age, gender and race are read, so a fault behind them does no harm.
"""

import re

from ageflow.config import PrepareData
from ageflow.data.files import find_pictures
from ageflow.data.matching import named
from ageflow.data.records import Reading

_FGNET_NAME = re.compile(r"(?P<identity>\d{3})a(?P<age>\d{2})[a-z]?\.(jpe?g|png|bmp|tiff?)", re.IGNORECASE)
# A date has 17 digits: what stands in the place of gender or race must have one.
_UTKFACE_NAME = re.compile(r"(?P<age>-?\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d+.*\.(jpe?g|png)", re.IGNORECASE)
_GENDERS = {"0": "male", "1": "female"}
_RACES = {"0": "white", "1": "black", "2": "asian", "3": "indian", "4": "other"}


def read_fgnet(settings: PrepareData) -> Reading:
    """The table of FG-NET.

    Arguments:
        settings: `data_root`: the folder of images/, the one above it, or images/ itself.

    Raises:
        ParameterError: the pictures are not there.
    """
    everything, pictures = find_pictures(settings, ("images",), "the folder images (001A02.JPG …) of FG-NET")
    listing = everything.below(pictures)
    table, left = named(listing, _FGNET_NAME, "a subject's number, the letter A and an age, as in 001A02.JPG")
    notes = [
        "A test set of a model trained on another set: no face of it is in a training half.",
        "FG-NET has no labels of sex and race.",
    ]
    return Reading.of(listing, table.assign(split="test"), left, notes, "fgnet")


def read_utkface(settings: PrepareData) -> Reading:
    """The table of UTKFace; every picture counts as a person of its own.

    Arguments:
        settings: `data_root`: the folder of the pictures, or the one above it.

    Raises:
        ParameterError: the pictures are not there.
    """
    expected = "the folder UTKFace (25_0_2_20170116174525125.jpg …), or the folders part1, part2 and part3"
    everything, pictures = find_pictures(settings, ("utkface",), expected)
    listing = everything.below(pictures)
    form = "age_gender_race_time with gender 0 or 1 and race 0 to 4, as in 25_0_2_20170116174525125.jpg"
    table, left = named(listing, _UTKFACE_NAME, form)
    table = table.assign(gender=table["gender"].map(_GENDERS), race=table["race"].map(_RACES))
    notes = ["Ages, genders and races are those in the files' names, most of them estimated and checked by people."]
    return Reading.of(listing, table, left, notes, "utkface", identities=False)
