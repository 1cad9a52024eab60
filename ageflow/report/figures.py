"""Figures 1, 4, 6, A.1 and A.2 of a run, two that the paper lacks, and the curves of its trainings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path

import pandas as pd
import torch
from IPython.display import Markdown
from torch import Tensor
from torch.nn.functional import interpolate

from ageflow.checkpoint import checkpoints
from ageflow.config import Figures, ParameterError
from ageflow.data.align import Aligner
from ageflow.data.faces import Faces
from ageflow.data.files import is_picture, list_files
from ageflow.data.pictures import open_image, read_picture
from ageflow.evaluation.methods import load_method
from ageflow.evaluation.scores import by_group, strength_curves
from ageflow.flows.glow import Glow, load_glow
from ageflow.report import grids, plots
from ageflow.report.drawing import COLUMN, Figure
from ageflow.report.results import Results, trainings
from ageflow.run import Manifest, Workspace, digest
from ageflow.translation.methods import METHODS, PARTS
from ageflow.translation.prototypes import Latents, Prototypes
from ageflow.work import progress_bar

FIGURES = [f"figure_{name}" for name in ("1_top", "1_bottom", "4", "5", "6", "sheet", "ages", "trade_off", "a1", "a2")]

_NAME_MORE = "name baselines or one's own in 06_ablations.ipynb (methods)"
_ON_THE_SHEET = ("glow+attribute", "calibrated", "no_ictm", "ageflow")


@dataclass(frozen=True)
class ExternalFaces:
    """Faces that a run's model has never seen.

    Arguments:
        images: uint8 [N, 3, S, S], aligned as the run's faces are.
        labels: what is known of each, short: its age, or nothing.
        about: where they come from, a sentence.
        left_out: files that gave no face, and why.
    """

    images: Tensor
    labels: list[str]
    about: str
    left_out: dict[str, str] = field(default_factory=dict)


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
        where = settings.model_dump(include={"dataset", "run", "runs_root", "device"})
        self._method = cache(partial(load_method, **where))
        self.missing = [name for name, part in PARTS.items() if not all(map(self.workspace.has, ("glow", part)))]

    def figure_1_top(self) -> Figure:
        """The latents of the faces in the plane."""
        latents, attributes = Latents.open(self.workspace.require("latents"), self.faces), self.faces.attributes
        plane = plots.project_latents(latents, next(iter(attributes), None), self.settings.seed)
        return plots.latent_scatter(plane, attributes)

    def figure_1_bottom(self) -> Figure:
        """The faces of the average latents."""
        return grids.prototype_grid(Prototypes.load(self.workspace.require("prototypes")), self.glow)

    def figure_4(self) -> Figure:
        """Test faces in every age group, by AgeFlow."""
        chosen = grids.choose_faces(self.shown, self.settings.rows, self.settings.seed)
        return grids.translation_grid(self._method("ageflow"), self.shown, chosen)

    def figure_5(self) -> Figure | str:
        """The same test faces by every method that was judged, where there are more than the ablation's."""
        return self._judged(self._by_every_method)

    def figure_6(self) -> Figure:
        """The variants on a few test faces, less those that the run has not trained (`missing`)."""
        methods = {name: self._method(name) for name in METHODS if name not in self.missing}
        chosen = grids.choose_faces(self.shown, min(self.settings.rows, 2), self.settings.seed)  # as fit a page
        return grids.variant_grid(methods, self.shown, chosen)

    def figure_sheet(self) -> Figure:
        """The best of the variants on many test faces."""
        methods = {name: self._method(name) for name in _ON_THE_SHEET if name not in self.missing}
        chosen = grids.choose_faces(self.shown, 8 * self.settings.rows, self.settings.seed)
        return grids.method_sheet(methods, self.shown, chosen)

    def figure_ages(self) -> Figure | str:
        """Predicted age against continuous target age, by method."""
        return self._judged(_ages)

    def figure_trade_off(self) -> Figure | str:
        """Identity against age accuracy, each method moving faces less and more of the way."""
        return self._judged(_trade_off)

    def figure_a1(self) -> Figure | str:
        """Faces of another set in every age group, by AgeFlow."""
        if not self.external:
            return "no other set is named: pass -p external (dataset/run, or a folder of pictures) to 08_figures.ipynb"
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
        of = self.settings
        return of.external and external_faces(of.external, self.faces, of.runs_root, of.rows, of.seed)

    def _judged(self, draw: Callable[[Results], Figure]) -> Figure | str:
        if not self.workspace.has("evaluation"):
            return "the run has no evaluation: run 06_ablations.ipynb"
        results = Results.open(self.workspace)
        return results.trained_since or draw(results)

    def _by_every_method(self, results: Results) -> Figure | str:
        if not results.others:
            return f"only the ablation's methods were judged: {_NAME_MORE}"
        try:
            methods = {title: self._method(name) for name, title in results.titles.items()}
        except (ValueError, FileNotFoundError) as error:  # one's own that is gone, or a baseline
            return f"{error}; judge the methods again by 06_ablations.ipynb"
        # The faces that were judged: a folder has pictures of no others.
        external = results.real.about.get("external")
        faces = Faces.find(external, self.settings.runs_root) if external else self.shown
        faces = Faces(faces.folder, faces.table[faces.table["face"].isin(results.real.rows["face"])])
        return grids.method_grid(methods, faces, grids.choose_faces(faces, 2, self.settings.seed))


def _ages(results: Results) -> Figure | str:
    curves = plots.age_curves(results.continuous.rows, titles=results.titles)
    if curves.empty:
        return "no method that was judged takes any age between"
    return plots.age_plot(curves, results.age_groups)


def _trade_off(results: Results) -> Figure:
    """Identity, KID and cycle error against age accuracy; the last two where there are more than the ablation's methods."""
    curves = strength_curves(results.strength.rows)
    if not results.others:
        return plots.trade_off_plot(curves, results.titles)
    errors, rows = results.cycle.rows.groupby("method")["cycle_error"].mean(), []
    for name, title in results.titles.items():
        accuracy = by_group(results.methods[name].rows)["age_accuracy"].mean()
        kid = 1000 * pd.DataFrame(results.methods[name].about["kid"])["kid"].mean(skipna=False)
        rows.append((title, accuracy, kid, errors.get(name)))
    points = pd.DataFrame(rows, columns=["method", "age_accuracy", "KID × 1000", "cycle error"])
    return plots.trade_off_plot(curves, results.titles, points)


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
    if run.external:
        details["external"] = {"faces": run.external.about, "left_out": run.external.left_out}
    Manifest(fingerprint=digest(details), details=details).write(folder)
    return made | {name: Markdown(f"*Left out: {why}.*") for name, why in left_out.items()}


def write_figures(folder: Path, made: Mapping[str, Figure | str]) -> None:
    """Write figures as PNG and PDF; of one that is left out, no files of an earlier call stay."""
    for name, figure in made.items():
        for file in map(folder.joinpath, (f"{name}.png", f"{name}.pdf")):
            if isinstance(figure, Figure):
                figure.save(file)
            else:
                file.unlink(missing_ok=True)


def external_faces(external: str, own: Faces, runs_root: Path, count: int, seed: int = 0) -> ExternalFaces:
    """At most `count` faces of another set, as large as the run's own.

    Arguments:
        external: ``dataset/run`` of a prepared run, the folder of a run, or a folder of pictures, whose faces are
            searched for and aligned as in notebook 01.
        own: the run's faces; who is in their training half is not shown.
        runs_root: folder of all runs.
        count: faces wanted. Of a run they are drawn at random, test faces first; of a folder they are the first.
        seed: of the draw.

    Raises:
        ParameterError: nothing of that name is there, or no face in it can be shown; the message says why.
    """
    faces, folder = Faces.find(external, runs_root), Path(external).expanduser().resolve()
    if faces is None and not folder.is_dir():
        raise ParameterError(
            f"external = {external!r} is neither a prepared run in {runs_root} (dataset/run: 01_prepare_data.ipynb "
            f"makes one) nor a folder of pictures ({folder} is not there)"
        )
    if faces is None:
        return _of_folder(external, folder, own.image_size, count)
    unseen = faces.unseen_by(own)
    if not len(unseen):
        raise ParameterError(
            f"external = {external!r}: everybody in it is in the training half of this run too; name another set"
        )
    order = unseen.table.sample(frac=1, random_state=seed).sort_values("split", kind="stable")  # "test" before "train"
    order = order.assign(_again=order.groupby("identity").cumcount()).sort_values("_again", kind="stable")
    chosen = order.index[:count].to_numpy()
    size = (own.image_size,) * 2
    images = interpolate(unseen.images(chosen).float(), size, mode="bilinear", antialias=True).round().byte()
    about = f"{len(chosen)} of the {len(unseen):,} faces of {external} whose people the model was not trained on."
    return ExternalFaces(images, grids.age_labels(unseen.table["age"].iloc[chosen]), about)


def _of_folder(external: str, folder: Path, side: int, count: int) -> ExternalFaces:
    listing, aligner, found = list_files(folder), Aligner(side), []
    left_out = dict(listing.refused)
    for name in filter(is_picture, listing.files):
        try:
            (face,) = aligner.align([open_image(read_picture(folder, name))])
        except ValueError as error:
            face = str(error)
        if isinstance(face, str):
            left_out[name] = face
        else:
            found.append(torch.from_numpy(face.image).permute(2, 0, 1))
        if len(found) == count:
            break
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5]) or "it holds no pictures"
        raise ParameterError(f"external = {external!r}: no face is found in {folder} ({why})")
    return ExternalFaces(torch.stack(found), [""] * len(found), f"{len(found)} faces from {external}.", left_out)
