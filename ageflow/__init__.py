"""AgeFlow: conditional age progression and regression with normalizing flows (IJCAI 2021).

Names are loaded when first used, so that a misspelt parameter stops a notebook at once, before torch is imported.
"""

import importlib
from typing import Any

_NAMES = {
    "ageflow.config": ("ParameterError",),
    "ageflow.parameters": ("settings",),
    "ageflow.run": ("MissingArtefactError", "Workspace"),
    "ageflow.flows.glow": ("Glow", "GlowConfig", "to_uint8"),
    "ageflow.flows.released": ("load_released",),
    "ageflow.translation.ages": ("age_to_weights",),
    "ageflow.translation.ictm": ("ICTM", "ICTMConfig"),
    "ageflow.translation.methods": ("Method",),
    "ageflow.evaluation.methods": ("load_method",),
}
__all__ = [name for names in _NAMES.values() for name in names]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    for module, names in _NAMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'ageflow' has no attribute {name!r}")
