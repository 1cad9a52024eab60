"""The data sets that can be read."""

from collections.abc import Callable

from ageflow.config import PrepareData
from ageflow.data import demo
from ageflow.data.records import Reading

__all__ = ["READERS"]

# A new data set is one new file and one line here.
READERS: dict[str, Callable[[PrepareData], Reading]] = {
    "demo": demo.read,
}
