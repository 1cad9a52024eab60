"""Figures 1, 4, 6, A.1 and A.2 of a run, two that the paper lacks, and the curves of its trainings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ageflow.checkpoint import checkpoints
from ageflow.config import Figures
from ageflow.data.faces import Faces
from ageflow.evaluation.evaluate import METHOD_PARTS
from ageflow.evaluation.judged import file_name, read_judged
from ageflow.evaluation.judges import classifier_names
from ageflow.evaluation.scores import strength_curves
from ageflow.flows.glow import Glow, load_glow
from ageflow.report.ages import AGES_FILE, age_curves, draw_ages, read_ages
from ageflow.report.external import ExternalFaces, external_faces
from ageflow.report.picture import Picture
from ageflow.report.pictures import (
    choose_faces,
    draw_prototypes,
    foreign_grid,
    prototype_height,
    temperature_grid,
    translation_grid,
    variant_grid,
)
from ageflow.report.plots import draw_scatter, project_latents, scatter_height, training_curves
from ageflow.report.results import trained_since
from ageflow.report.strengths import STRENGTH_FILE, draw_strengths
from ageflow.report.style import COLUMN
from ageflow.run import Manifest, Workspace, digest
from ageflow.translation.latents import Latents
from ageflow.translation.methods import METHODS, load_method
from ageflow.translation.prototypes import Prototypes
from ageflow.work import progress_bar

# Faces of Figure 6 stand one above the other, each in as many rows as there are methods; a page holds two.
_MOST_BLOCKS = 2


@dataclass(frozen=True)
class LeftOut:
    """A figure that cannot be drawn from what the run has, and what would draw it."""

    why: str

    def _repr_markdown_(self) -> str:
        return f"*Left out: {self.why}.*"


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
        self._method = cache(self._load_method)

    def figure_1(self) -> Picture:
        """The latents of the faces in the plane, above; the faces of the average latents, below."""
        latents = Latents.open(self.workspace.require("latents"), self.faces)
        prototypes = Prototypes.load(self.workspace.require("prototypes"))
        attributes = self.faces.attributes
        plane = project_latents(latents, attributes[0] if attributes else None, self.settings.seed)
        heights = (scatter_height(attributes), prototype_height(prototypes))
        picture = Picture(COLUMN, sum(heights))
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

    def figure_a1(self) -> Picture | LeftOut:
        """Faces of another set in every age group, by AgeFlow; left out where no other set is named."""
        if self.external is None:
            return LeftOut(
                "no other set is named: pass -p external with another prepared run (dataset/run) or with a folder of "
                "pictures to 08_figures.ipynb, or -p figures.external to a batch"
            )
        return foreign_grid(self._method("ageflow"), self.external.images, self.external.labels)

    def figure_a2(self) -> Picture:
        """Faces drawn from GLOW, by temperature."""
        chosen = self.settings
        return temperature_grid(self.glow, chosen.temperatures, chosen.samples, chosen.seed)

    def _not_measured(self, file: Path) -> LeftOut | None:
        """Why a figure of what notebook 06 measured is left out: it did not, or of networks that are others now."""
        if not file.is_file():
            return LeftOut(f"the run has no evaluation/{file.name}: 06_ablations.ipynb writes it")
        judged = [self.workspace.path("evaluation", file_name(name)) for name in ("real", *METHODS)]
        since = trained_since(self.workspace, [read_judged(each) for each in judged if each.is_file()])
        return LeftOut(since) if since else None

    def figure_ages(self) -> Picture | LeftOut:
        """Predicted age against continuous target age, by method; left out where it has not been measured."""
        file = self.workspace.path("evaluation", AGES_FILE)
        return self._not_measured(file) or draw_ages(age_curves(read_ages(file)))

    def figure_strength(self) -> Picture | LeftOut:
        """What each method gives up of the person for an age; left out where it has not been measured."""
        file = self.workspace.path("evaluation", STRENGTH_FILE)
        return self._not_measured(file) or draw_strengths(strength_curves(read_judged(file).rows))

    def curves(self) -> dict[str, Picture]:
        """The curves of every training of the run, by a name for their file."""
        folders = [self.workspace.path(name) for name in ("glow", "decoded_age", "ictm", "no_ictm")]
        if self.workspace.has("classifiers"):
            classifiers = self.workspace.require("classifiers")
            folders += [classifiers / name for name in classifier_names(classifiers)]
        return {
            f"training_{folder.name}": training_curves(folder, columns=2, side=COLUMN / 2)
            for folder in folders
            if any(iteration > 0 for iteration, _ in checkpoints(folder))  # weights taken as they are have no curve
        }

    @cached_property
    def glow(self) -> Glow:
        """The run's GLOW."""
        return load_glow(self.workspace.require("glow"), self.settings.device)

    @cached_property
    def external(self) -> ExternalFaces | None:
        """The faces of Figure A.1; None where the settings name no other set."""
        chosen = self.settings
        if chosen.external is None:
            return None
        return external_faces(chosen.external, self.faces, chosen.runs_root, chosen.rows, chosen.seed)

    @property
    def missing(self) -> list[str]:
        """The methods that the run has not trained."""
        return [name for name, parts in METHOD_PARTS.items() if not all(map(self.workspace.has, parts))]

    def _load_method(self, name: str) -> Any:
        for part in METHOD_PARTS[name]:
            self.workspace.require(part)
        chosen = self.settings
        return load_method(name, chosen.dataset, chosen.run, runs_root=chosen.runs_root, device=chosen.device)


def make_figures(settings: Figures) -> dict[str, Picture | LeftOut]:
    """Draw every figure and write it into ``figures/`` as PNG and PDF; ``manifest.json`` is written last.

    Returns:
        Each figure, by the name of its files, or why it is left out.

    Raises:
        MissingArtefactError: an earlier notebook has not run; the message says which.
        ParameterError: the other set of Figure A.1 cannot be used.
    """
    gallery = Gallery(settings)
    folder = Workspace.of(settings).folder("figures")
    drawn: dict[str, Callable[[], Picture | LeftOut]] = {
        "figure_1": gallery.figure_1,
        "figure_4": gallery.figure_4,
        "figure_6": gallery.figure_6,
        "figure_ages": gallery.figure_ages,
        "figure_strength": gallery.figure_strength,
        "figure_a1": gallery.figure_a1,
        "figure_a2": gallery.figure_a2,
    }
    made: dict[str, Picture | LeftOut] = {}
    for name, draw in progress_bar(drawn.items(), unit="figure", title="figures", show=settings.progress):
        made[name] = draw()
    made |= gallery.curves()
    write_figures(folder, made)
    told = gallery.external
    done = {
        "figures": [name for name, picture in made.items() if isinstance(picture, Picture)],
        "left_out": {name: picture.why for name, picture in made.items() if isinstance(picture, LeftOut)},
        "missing": gallery.missing,
        "external": None if told is None else {"faces": told.told, "left_out": told.left_out},
    }
    Manifest(fingerprint=digest(done), details=done).write(folder)
    return made


def write_figures(folder: Path, made: Mapping[str, Picture | LeftOut]) -> None:
    """Write figures as PNG and PDF; of one that is left out, no files of an earlier call stay."""
    for name, picture in made.items():
        if isinstance(picture, Picture):
            picture.save(folder / name)
            continue
        for kind in ("png", "pdf"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
