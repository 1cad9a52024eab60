"""The data sets that can be read."""

from collections.abc import Callable

from ageflow.config import PrepareData
from ageflow.data import cacd, celeba, demo, filenames, folder, morph
from ageflow.data.records import Reading

# A new data set is one new file and one line here.
READERS: dict[str, Callable[[PrepareData], Reading]] = {
    "demo": demo.read,
    "morph": morph.read,
    "cacd": cacd.read,
    "fgnet": filenames.read_fgnet,
    "celeba": celeba.read,
    "utkface": filenames.read_utkface,
    "folder": folder.read,
}
