"""The age slider of notebook 09: one face at any age, from a run's test faces or from a picture of one's own."""

from ageflow.slider.explorer import Explorer, Portrait, View, find_models
from ageflow.slider.widget import AgeSlider

__all__ = ["AgeSlider", "Explorer", "Portrait", "View", "find_models"]
