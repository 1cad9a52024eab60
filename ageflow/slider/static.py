"""What the slider shows as one figure, for where no front end runs: papermill, a plain kernel, an exported page."""

from torch import Tensor

from ageflow.data.records import AGE_GROUPS
from ageflow.flows.glow import to_uint8
from ageflow.report.drawing import Figure, bare, show_face
from ageflow.slider.explorer import Explorer, Portrait, Readings
from ageflow.slider.pictures import DIFFERENCE_GAIN, difference
from ageflow.translation.ages import GROUP_CENTRES
from ageflow.translation.methods import METHODS


def static_figure(
    explorer: Explorer,
    portrait: Portrait,
    age: float,
    method: str,
    strength: float | None = None,
    told: str = "",
) -> Figure:
    """Before, after and difference above the strip of all groups.

    Arguments:
        explorer: of a run.
        portrait: the face.
        age: years.
        method: a key of `METHODS`.
        strength: how much of the way; None for the settings'.
        told: a line of readings to stand under it.
    """
    after = explorer.at_age(portrait, age, method, strength)
    groups = explorer.at_ages(portrait, GROUP_CENTRES, method, strength)
    figure = Figure(8.0, 5.6)
    figure.suptitle(f"{METHODS[method]}: {portrait.about}", fontsize=11)
    if told:
        figure.supxlabel(told, fontsize=9)
    top, bottom = figure.subfigures(2, 1, height_ratios=(3, 2))
    upper = [
        (portrait.image, "before"),
        (after, f"at {age:.1f} years"),
        (difference(portrait.image, after), f"difference × {DIFFERENCE_GAIN}"),
    ]
    for axes, (image, title) in zip(top.subplots(1, 3), upper, strict=True):
        show_face(axes, image)
        axes.set_title(title, fontsize=10)
    lower = [(portrait.image, "before"), *zip(groups, AGE_GROUPS, strict=True)]
    for axes, (image, title) in zip(bottom.subplots(1, len(lower)), lower, strict=True):
        show_face(axes, image)
        bare(axes)
        axes.set_title(title, fontsize=10)
    return figure


def in_words(readings: Readings, back: Tensor | None, original: Tensor) -> list[str]:
    """What is known of the face shown, a sentence each.

    Arguments:
        readings: of the judges.
        back: the face moved there and back by the exact inverse, float [3, S, S]; None: there is no inverse.
        original: uint8 [3, S, S].
    """
    told = [f"cosine to the face before {readings.cosine:.3f} ({readings.embedder})"]
    if readings.age is None:
        told.append("no estimated age: run 05_train_classifiers.ipynb")
    else:
        told.append(f"estimated age {readings.age:.0f}")
    if back is None:
        return [*told, "no way back: this method has no inverse"]
    largest = float((back * 255 - original).abs().max())
    differ = int((to_uint8(back) != original).sum())
    return [*told, f"there and back: largest error {largest:.1g} of 255, {differ} of {original.numel()} values differ"]
