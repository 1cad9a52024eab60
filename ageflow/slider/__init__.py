"""The age slider of notebook 09: one face at any age, from a run's test faces or from a picture of one's own."""

from ageflow.slider.explorer import Explorer, NoFaceError, Portrait, Readings
from ageflow.slider.latest import Latest
from ageflow.slider.models import find_models
from ageflow.slider.static import static_figure
from ageflow.slider.widget import AgeSlider, age_slider
from ageflow.translation.ages import GROUP_CENTRES, OLDEST, YOUNGEST, age_to_weights

__all__ = [
    "GROUP_CENTRES",
    "OLDEST",
    "YOUNGEST",
    "AgeSlider",
    "Explorer",
    "Latest",
    "NoFaceError",
    "Portrait",
    "Readings",
    "age_slider",
    "age_to_weights",
    "find_models",
    "static_figure",
]
