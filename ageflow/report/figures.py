"""Figures 1, 4, 6, A.1 and A.2 of a run, two that the paper lacks, and the curves of its trainings."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from IPython.display import Markdown

from ageflow.checkpoint import checkpoints
from ageflow.config import Figures
from ageflow.data.faces import Faces
from ageflow.evaluation.scores import strength_curves
from ageflow.flows.glow import Glow, load_glow
from ageflow.report import grids, plots
from ageflow.report.drawing import COLUMN, Figure
from ageflow.report.external import ExternalFaces, external_faces
from ageflow.report.results import Results, trainings
from ageflow.run import Manifest, Workspace, digest
from ageflow.translation.methods import METHODS, PARTS, LatentMethod, load_method
from ageflow.translation.prototypes import Latents, Prototypes
from ageflow.work import progress_bar

FIGURES = [f"figure_{name}" for name in ("1_top", "1_bottom", "4", "6", "ages", "trade_off", "a1", "a2")]
# Faces of Figure 6 stand one above the other, each in as many rows as there are methods; a page holds two.
_MOST_BLOCKS = 2


class RunFigures:
    """The figures of one run, each drawn when asked for; a figure that cannot be drawn is a text that says why.

    Arguments:
        settings: of notebook 08.

    Raises:
        MissingArtefactError: an earlier notebook has not run; the message says which.

    Example:
        ``RunFigures(settings).figure_4()``
    """

    def __init__(self, settings: Figures) -> None:
        self.settings, self.workspace = settings, Workspace.of(settings)
        self.faces = Faces.open(self.workspace.require("faces"))
        test = self.faces.select(split="test")
        self.shown = test if len(test) else self.faces
        self.missing = [name for name, part in PARTS.items() if not all(map(self.workspace.has, ("glow", part)))]

    def figure_1_top(self) -> Figure:
        """The latents of the faces in the plane."""
        attributes = self.faces.attributes
        latents = Latents.open(self.workspace.require("latents"), self.faces)
        return plots.latent_scatter(
            plots.project_latents(latents, next(iter(attributes), None), self.settings.seed), attributes
        )

    def figure_1_bottom(self) -> Figure:
        """The faces of the average latents."""
        return grids.prototype_grid(Prototypes.load(self.workspace.require("prototypes")), self.glow)

    def figure_4(self) -> Figure:
        """Test faces in every age group, by AgeFlow."""
        chosen = grids.choose_faces(self.shown, self.settings.rows, self.settings.seed)
        return grids.translation_grid(self._method("ageflow"), self.shown, chosen)

    def figure_6(self) -> Figure:
        """The variants on a few test faces, less those that the run has not trained (`missing`)."""
        blocks = min(self.settings.rows, _MOST_BLOCKS)
        methods = {name: self._method(name) for name in METHODS if name not in self.missing}
        return grids.variant_grid(methods, self.shown, grids.choose_faces(self.shown, blocks, self.settings.seed))

    def figure_ages(self) -> Figure | str:
        """Predicted age against continuous target age, by method."""
        return self._not_judged or plots.age_plot(plots.age_curves(self._results.continuous.rows))

    def figure_trade_off(self) -> Figure | str:
        """Identity against age accuracy, each method moving faces less and more of the way."""
        return self._not_judged or plots.trade_off_plot(strength_curves(self._results.strength.rows))

    def figure_a1(self) -> Figure | str:
        """Faces of another set in every age group, by AgeFlow."""
        if self.external is None:
            return (
                "no other set is named: pass -p external with another prepared run (dataset/run) or with a folder of "
                "pictures to 08_figures.ipynb, or -p figures.external to a batch"
            )
        return grids.foreign_grid(self._method("ageflow"), self.external.images, self.external.labels)

    def figure_a2(self) -> Figure:
        """Faces drawn from GLOW, by temperature."""
        chosen = self.settings
        return grids.temperature_grid(self.glow, chosen.temperatures, chosen.samples, chosen.seed)

    def training_curves(self) -> dict[str, Figure]:
        """The curves of every training of the run, by a name for their file."""
        return {
            f"training_{folder.name}": plots.training_curves(folder, columns=2, side=COLUMN / 2)
            for folder in trainings(self.workspace).values()
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

    @cached_property
    def _results(self) -> Results:
        return Results.open(self.workspace)

    @property
    def _not_judged(self) -> str:
        if not self.workspace.has("evaluation"):
            return "the run has no evaluation: run 06_ablations.ipynb"
        return self._results.trained_since

    def _method(self, name: str) -> LatentMethod:
        chosen = self.settings
        return load_method(name, chosen.dataset, chosen.run, runs_root=chosen.runs_root, device=chosen.device)


def make_figures(settings: Figures) -> dict[str, Figure | Markdown]:
    """Draw every figure and write it into ``figures/`` as PNG and PDF; ``manifest.json`` is written last.

    Returns:
        Each figure, by the name of its files, or why it is left out; of one that is, no earlier files stay.

    Raises:
        MissingArtefactError: an earlier notebook has not run; the message says which.
        ParameterError: the other set of Figure A.1 cannot be used.
    """
    run, folder = RunFigures(settings), Workspace.of(settings).folder("figures")
    bar = progress_bar(FIGURES, unit="figure", title="figures", show=settings.progress)
    made = {name: getattr(run, name)() for name in bar} | run.training_curves()
    left_out = {name: why for name, why in made.items() if isinstance(why, str)}
    write_figures(folder, made)
    details = {"figures": [name for name in made if name not in left_out], "left_out": left_out, "missing": run.missing}
    if run.external is not None:
        details["external"] = {"faces": run.external.about, "left_out": run.external.left_out}
    Manifest(fingerprint=digest(details), details=details).write(folder)
    return made | {name: Markdown(f"*Left out: {why}.*") for name, why in left_out.items()}


def write_figures(folder: Path, made: Mapping[str, Figure | str]) -> None:
    """Write figures as PNG and PDF; of one that is left out, no files of an earlier call stay."""
    for name, figure in made.items():
        if isinstance(figure, Figure):
            figure.save(folder / name)
            continue
        for kind in ("png", "pdf"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
