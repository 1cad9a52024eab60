"""Names that people type: the nearest of those that are known, and what the methods are called."""

import difflib
import importlib
import inspect
from collections.abc import Iterable
from pathlib import Path

METHODS = ("glow", "glow+attribute", "soft_source", "calibrated", "no_ictm", "ageflow")
# The published methods that notebook 11 trains: name, which is its file in ageflow/baselines/, and what it is called.
BASELINES = {
    "caae": "CAAE",
    "ipcgan": "IPCGAN",
    "glca": "GLCA-GAN",
    "wglca": "WGLCA-GAN",
    "pag": "PAG-GAN",
    "dual_acgan": "Dual AcGAN",
    "a3gan": "A3GAN",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """``": did you mean 'morph'?"`` for the nearest of the `known` names; nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def any_method(name: str) -> str:
    """The name of a method, if it can be one; of a folder, with its whole path.

    Raises:
        ValueError: it is none of the kit's methods and baselines, ``module:Class`` names no class that can be
            imported, or ``folder:/path`` no folder.
    """
    if name.startswith("folder:"):
        folder = Path(name.removeprefix("folder:")).expanduser().resolve()
        if not folder.is_dir():
            raise ValueError(f"{name!r}: {folder} is no folder; expected one with pictures <face>_<target>.png")
        return f"folder:{folder}"
    if ":" in name:
        own_class(name)
        return name
    if name not in (known := (*METHODS, *BASELINES)):
        named = f"{', '.join(known)}, or one's own: package.module:Class, or folder:/path"
        raise ValueError(f"no method {name!r}{nearest(name, known)} (the methods are {named})")
    return name


def own_class(name: str) -> type:
    """The class of somebody's own that ``package.module:Class`` names; ValueError: there is none, or it is no class."""
    module, _, attribute = name.partition(":")
    try:
        found = vars(importlib.import_module(module))
    except Exception as error:  # whatever is wrong in somebody's own module
        why = f"cannot be imported from the working directory or PYTHONPATH ({type(error).__name__}: {error})"
        raise ValueError(f"{name!r}: {module} {why}") from error
    if not isinstance(found.get(attribute), type):
        classes = [known for known, value in found.items() if isinstance(value, type)]
        raise ValueError(f"{name!r}: {module} has no class {attribute!r}{nearest(attribute, classes)}")
    return found[attribute]


def made_of(name: str) -> Path:
    """What decides what a method of somebody's own makes: its folder of pictures, or the source file of its class."""
    kind, _, place = name.partition(":")
    return Path(place) if kind == "folder" else Path(inspect.getfile(own_class(name)))
