"""AgeFlow: conditional age progression and regression with normalizing flows (IJCAI 2021).

Names are loaded when first used, so that a misspelt parameter stops a notebook at once, before torch is imported.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ageflow.config import ParameterError
    from ageflow.flows.glow import Glow, GlowConfig, to_uint8
    from ageflow.flows.released import load_released
    from ageflow.run import MissingArtefactError, Workspace
    from ageflow.translation.ages import age_to_weights
    from ageflow.translation.ictm import ICTM, ICTMConfig
    from ageflow.translation.methods import load_method

_WHERE = {
    "ICTM": "ageflow.translation.ictm",
    "ICTMConfig": "ageflow.translation.ictm",
    "Glow": "ageflow.flows.glow",
    "GlowConfig": "ageflow.flows.glow",
    "MissingArtefactError": "ageflow.run",
    "ParameterError": "ageflow.config",
    "Workspace": "ageflow.run",
    "age_to_weights": "ageflow.translation.ages",
    "load_method": "ageflow.translation.methods",
    "load_released": "ageflow.flows.released",
    "settings": "ageflow.parameters",
    "to_uint8": "ageflow.flows.glow",
}

__all__ = [
    "ICTM",
    "Glow",
    "GlowConfig",
    "ICTMConfig",
    "MissingArtefactError",
    "ParameterError",
    "Workspace",
    "age_to_weights",
    "load_method",
    "load_released",
    "settings",
    "to_uint8",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ageflow' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
