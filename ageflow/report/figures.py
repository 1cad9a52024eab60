"""Figures 1, 4, 6 and A.2 of a run, and the curves of its trainings."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from ageflow.config import Figures
from ageflow.data.faces import Faces
from ageflow.evaluation.evaluate import METHOD_PARTS
from ageflow.evaluation.judging import classifier_names
from ageflow.flows.glow import Glow, load_glow
from ageflow.progress import progress_bar
from ageflow.report.picture import Picture
from ageflow.report.pictures import choose_faces, draw_prototypes, glow_samples, translation_grid, variant_grid
from ageflow.report.plots import draw_scatter, project_latents, training_curves
from ageflow.storage import checkpoints, write_atomically
from ageflow.translation.latents import Latents
from ageflow.translation.methods import METHODS, load_method
from ageflow.translation.prototypes import Prototypes
from ageflow.workspace import Workspace

__all__ = ["Gallery", "make_figures"]

# Faces of Figure 6 stand side by side; more of them do not fit a page.
_MOST_BLOCKS = 3


class Gallery:
    """The figures of one run, each drawn when asked for.

    Arguments:
        settings: of notebook 08.

    Raises:
        MissingArtefactError: an earlier notebook has not run; the message says which.

    Example:
        ``Gallery(settings).figure_4()``
    """

    def __init__(self, settings: Figures) -> None:
        self.settings, self.workspace = settings, Workspace.of(settings)
        self.faces = Faces.open(self.workspace.require("faces"))
        test = self.faces.select(split="test")
        self.shown = test if len(test) else self.faces
        self._glow: Glow | None = None
        self._method = cache(self._load_method)

    def figure_1(self) -> Picture:
        """The latents of the faces in the plane, above; the faces of the average latents, below."""
        latents = Latents.open(self.workspace.require("latents"), self.faces)
        prototypes = Prototypes.load(self.workspace.require("prototypes"))
        attributes = self.faces.attributes
        plane = project_latents(latents, attributes[0] if attributes else None, self.settings.seed)
        heights = (7.2, 1.7 * prototypes.means.shape[1])
        picture = Picture(4.2 * (1 + len(attributes)), sum(heights))
        top, bottom = picture.subfigures(2, 1, height_ratios=heights)
        draw_scatter(top, plane, attributes)
        draw_prototypes(bottom, prototypes, self.glow)
        return picture

    def figure_4(self) -> Picture:
        """Test faces in every age group, by AgeFlow."""
        chosen = choose_faces(self.shown, self.settings.rows, self.settings.seed)
        return translation_grid(self._method("ageflow"), self.shown, chosen)

    def figure_6(self) -> Picture:
        """The variants on a few test faces; a variant that the run has not trained is left out (`missing` names it)."""
        blocks = min(self.settings.rows, _MOST_BLOCKS)
        methods = {name: self._method(name) for name in METHODS if name not in self.missing}
        return variant_grid(methods, self.shown, choose_faces(self.shown, blocks, self.settings.seed))

    def figure_a2(self) -> Picture:
        """Faces drawn from GLOW."""
        return glow_samples(self.glow, self.settings.samples, self.settings.temperature, self.settings.seed)

    def curves(self) -> dict[str, Picture]:
        """The curves of every training of the run, by a name for their file."""
        folders = [self.workspace.path(name) for name in ("glow", "ictm", "no_ictm")]
        if self.workspace.has("classifiers"):
            classifiers = self.workspace.require("classifiers")
            folders += [classifiers / name for name in classifier_names(classifiers)]
        return {f"training_{folder.name}": training_curves(folder) for folder in folders if checkpoints(folder)}

    @property
    def glow(self) -> Glow:
        """The run's GLOW, loaded once."""
        if self._glow is None:
            self._glow = load_glow(self.workspace.require("glow"), self.settings.device)
        return self._glow

    @property
    def missing(self) -> list[str]:
        """The methods that the run has not trained."""
        return [name for name, parts in METHOD_PARTS.items() if not all(map(self.workspace.has, parts))]

    def _load_method(self, name: str) -> Any:
        for part in METHOD_PARTS[name]:
            self.workspace.require(part)
        chosen = self.settings
        return load_method(name, chosen.dataset, chosen.run, runs_root=chosen.runs_root, device=chosen.device)


def make_figures(settings: Figures) -> dict[str, Picture]:
    """Draw every figure and write it into ``figures/`` as PNG and PDF; ``done.json`` is written last.

    Returns:
        Each figure, by the name of its files.

    Raises:
        MissingArtefactError: an earlier notebook has not run; the message says which.
    """
    gallery = Gallery(settings)
    folder = Workspace.of(settings).folder("figures")
    drawn: dict[str, Callable[[], Picture]] = {
        "figure_1": gallery.figure_1,
        "figure_4": gallery.figure_4,
        "figure_6": gallery.figure_6,
        "figure_a2": gallery.figure_a2,
    }
    made = {}
    for name, draw in progress_bar(drawn.items(), unit="figure", title="figures", show=settings.progress):
        made[name] = draw()
        made[name].save(folder / name)
    curves = gallery.curves()
    for name, picture in curves.items():
        picture.save(folder / name)
    done = {"figures": [*made, *curves], "missing": gallery.missing}
    write_atomically(folder / "done.json", json.dumps(done, indent=2).encode())
    return made | curves
