"""The data sets that can be read."""

from collections.abc import Callable

from ageflow.config import PrepareData
from ageflow.data import cacd, celeba, demo, fgnet, folder, morph, utkface
from ageflow.data.records import Reading

# A new data set is one new file and one line here.
READERS: dict[str, Callable[[PrepareData], Reading]] = {
    "demo": demo.read,
    "morph": morph.read,
    "cacd": cacd.read,
    "fgnet": fgnet.read,
    "celeba": celeba.read,
    "utkface": utkface.read,
    "folder": folder.read,
}
