"""FG-NET: 1,002 pictures of 82 subjects, 0 to 69 years (https://yanweifu.github.io/FG_NET_data/).

::

    FGNET/images/001A02.JPG      subject, "A", age, and a letter where a subject has two pictures at one age
    FGNET/points/001a02.pts      68 landmarks; not read: MTCNN's points align every set in the same way

Upper and lower case are mixed; some pictures are grey, which become RGB when they are opened. Sex is not told. It is
a test set of a model that was trained on another set, so all of it is the test half.
"""

import re

import pandas as pd

from ageflow.config import PrepareData
from ageflow.data.files import list_files, picture_folder
from ageflow.data.matching import named
from ageflow.data.records import COLUMNS, Reading

NAME = re.compile(r"(?P<identity>\d{3})a(?P<age>\d{2})[a-z]?\.(jpe?g|png|bmp|tiff?)", re.IGNORECASE)
_FORM = "a subject's number, the letter A and an age, as in 001A02.JPG"
_EXPECTED = "the folder images (001A02.JPG …) of FG-NET"


def read(settings: PrepareData) -> Reading:
    """The table of FG-NET.

    Arguments:
        settings: `data_root`: the folder of images/, the one above it, or images/ itself.

    Raises:
        ParameterError: the pictures are not there.
    """
    pictures = picture_folder(settings, ("images",), _EXPECTED)
    listing = list_files(pictures, pictures, settings.data_root)
    table, left = named(listing, NAME, _FORM)
    records = pd.DataFrame(table.assign(gender=None, race=None, source="fgnet", split="test"))
    notes = [
        "A test set of a model trained on another set: no face of it is in a training half.",
        "FG-NET tells no sex and no race.",
    ]
    return Reading(records[[*COLUMNS, "split"]], pictures, left, notes=notes + listing.notes)
