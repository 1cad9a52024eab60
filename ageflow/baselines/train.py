"""The training of the baselines, notebook 11: one task for all, in the kit's loop."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.baselines.base import Batch, Losses, baseline_class
from ageflow.baselines.blocks import ages_of, as_signed, one_hot, stage_shapes
from ageflow.checkpoint import fingerprint
from ageflow.config import ParameterError, TrainBaselines, nearest, validated
from ageflow.data.faces import Faces
from ageflow.device import device_of, reduced_precision, sent
from ageflow.parameters import settings as settings_of
from ageflow.run import Manifest, Workspace
from ageflow.training.classifier import augmented, labelled
from ageflow.training.distributed import launched
from ageflow.training.ictm import DECODED_AGE, train_age_classifier
from ageflow.training.loop import train
from ageflow.training.metrics import save_faces
from ageflow.training.task import MicroBatch, Objective, Task, Values, initial_weights
from ageflow.translation.classifier import load_classifier

_PREVIEW_FACES = 6
_JUDGED_FACES = 64
_MOVED = 0.5  # share of the judges' augmentation before C reads an age, as for T


def own_settings(settings: TrainBaselines, name: str) -> TrainBaselines:
    """The settings of one method: what they leave open is its `Recipe`'s.

    Raises:
        ParameterError: a weight that the method does not have.
    """
    recipe, chosen = baseline_class(name).recipe, {}
    for value in ("iterations", "batch_size", "learning_rate", "width"):
        given = getattr(settings, value)
        given = given.get(name) if isinstance(given, dict) else given
        chosen[value] = getattr(recipe, value, 1.0) if given is None else given
    if unknown := sorted(settings.weights.keys() - recipe.weights.keys()):
        known = ", ".join(recipe.weights)
        what = f"weights: {name} has no loss {unknown[0]!r}{nearest(unknown[0], recipe.weights)}"
        raise ParameterError(f"{what} (it has {known}; name methods whose losses these are)")
    weights = {**recipe.weights, **settings.weights}
    return validated(TrainBaselines, dict(settings) | chosen | {"methods": [name], "weights": weights})


class BaselineTask(Task):
    """A baseline's generator and its discriminators, in turn.

    Arguments:
        settings: of one method, see `own_settings`.
        faces: the run's prepared faces; those of the training half are learned from.
        classifier: folder of C.
    """

    def __init__(self, settings: TrainBaselines, faces: Faces, classifier: Path) -> None:
        (name,) = settings.methods
        self.settings, self.faces, self.device = settings, faces, device_of(settings.device)
        self.c = load_classifier(classifier, settings.device)
        self.groups, self.count = torch.tensor(faces.groups), len(faces.age_groups)
        known = {attribute: labelled(faces, attribute) for attribute in faces.attributes}
        labels = {attribute: values for attribute, (values, _) in known.items()}
        coded = [one_hot(numbers, len(values)) for values, numbers in known.values()]
        self.attributes = torch.cat([*coded, torch.zeros(len(faces), 0)], 1)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)  # the CPU's, which is put back
            arguments = faces.image_size, self.count, labels, settings.width, stage_shapes(self.c)
            self.model = model = baseline_class(name)(*arguments)
        sources = range(self.count) if model.pairs is None else [source for source, _ in model.pairs]
        split, begins = faces.table["split"].to_numpy(), np.isin(faces.groups, sources)
        self.rows, held_out = (np.flatnonzero((split == half) & begins) for half in ("train", "test"))
        self.shown = held_out if len(held_out) else self.rows
        self.of_group = [np.flatnonzero((split == "train") & (faces.groups == group)) for group in range(self.count)]
        if empty := [faces.age_groups.labels[group] for group, rows in enumerate(self.of_group) if len(rows) == 0]:
            groups = ", ".join(empty)
            raise ParameterError(f"no training face is of the age group {groups}: {name} takes some of every one")
        shape = model.shape | {"bounds": list(faces.age_groups.bounds)}
        if (weights := initial_weights(settings, f"baselines/{name}", "baseline", faces)) is not None:
            weights.fill(model, shape)
        self.modules = nn.ModuleDict({"baseline": model})
        self.objectives = [
            Objective(key, [*network.parameters()], partial(self.loss, key), settings.learning_rate, betas=(0.5, 0.999))
            for key, (network, _) in model.objectives().items()
        ]
        inputs = {"faces": faces.fingerprint, DECODED_AGE: fingerprint(classifier)}
        self.manifest = Manifest(inputs, settings.model_dump(mode="json"))
        self.networks = {"baseline": shape}
        self._batches: dict[MicroBatch, Batch] = {}

    def loss(self, key: str, part: MicroBatch) -> tuple[Tensor, Values]:
        """The weighted losses of one objective; the first of an update draws the faces, the last lets go of them."""
        keys = [objective.name for objective in self.objectives]
        if key == keys[0]:
            self._batches[part] = self.batch(part)
        with reduced_precision(self.device):
            losses = self.model.objectives()[key][1](self._batches[part])
        if key == keys[-1]:
            del self._batches[part]
        weights = self.settings.weights if key == keys[0] else {}
        return total_loss(losses, weights), losses

    def batch(self, part: MicroBatch) -> Batch:
        """Faces of a micro-batch, and for each a real face of another group."""
        rows = self.rows[part.choose(len(self.rows), self.settings.seed).numpy()]
        drawn = part.rows(torch.randint(1, self.count, (part.size, 2)))
        target = (self.groups[rows] + drawn[:, 0]) % self.count
        wrong = (target + drawn[:, 1]) % self.count

        def others(groups: Tensor) -> np.ndarray:
            places = part.rows(torch.rand(part.size)).tolist()
            candidates = [self.of_group[group] for group in groups.tolist()]
            return np.array([own[int(place * len(own))] for own, place in zip(candidates, places, strict=True)])

        chosen = others(target)
        return Batch(
            part,
            *self._labelled_images(rows, part),
            *self._labelled_images(chosen, part),
            wrong=self._groups(wrong),
            real=lambda groups: self._images(others(groups), part),
            ages=lambda faces: ages_of(self.c, augmented(smoothed((faces + 1) / 2), part, _MOVED)),
            c=self.c,
        )

    def _labelled_images(self, rows: np.ndarray, part: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Faces, their age groups and their attributes."""
        groups, attributes = self._groups(self.groups[rows]), sent(self.attributes[rows], self.device)
        return self._images(rows, part), groups, attributes

    def _groups(self, groups: Tensor) -> Tensor:
        return sent(one_hot(groups, self.count), self.device)

    def _images(self, rows: np.ndarray, part: MicroBatch) -> Tensor:
        """Faces in [−1, 1], half of them mirrored."""
        images = as_signed(sent(self.faces.images(rows), self.device))
        mirrored = part.rows(torch.rand(part.size, device=self.device)) < 0.5
        return torch.where(mirrored[:, None, None, None], images.flip(3), images)

    @torch.inference_mode()
    def preview(self, averaged: nn.ModuleDict, folder: Path, iteration: int) -> dict[str, float]:
        """Held-out faces and what is made of them; how often C reads the target, and the mean change of a pixel."""
        model, rows = averaged["baseline"], self.shown[:_JUDGED_FACES]
        x, source = as_signed(self.faces.images(rows).to(self.device)), self.groups[rows]
        columns, right, change = [x[:_PREVIEW_FACES]], [], []
        for group in range(self.count):
            target = torch.full_like(source, group)
            can, y = source != group, x.clone()
            if can.any():
                attributes = sent(self.attributes[rows][can], self.device)
                y[can] = model.generate(x[can], self._groups(target[can]), self._groups(source[can]), attributes)
                right.append(ages_of(self.c, (y[can] + 1) / 2).argmax(1) == group)
                change.append((y[can] - x[can]).abs().mean((1, 2, 3)))
            columns.append(y[:_PREVIEW_FACES])
        images = (torch.stack(columns, dim=1).flatten(0, 1) + 1) / 2
        save_faces(images, folder / f"faces-{iteration:08d}.png", columns=len(columns))
        accuracy, changed = (float(torch.cat(found).float().mean()) for found in (right, change))
        return {"test/age_accuracy_of_c": accuracy, "test/change": changed}


def smoothed(x: Tensor) -> Tensor:
    """Faces [B, 3, S, S] through the binomial filter (1, 2, 1) / 4 both ways: a pattern of single pixels vanishes."""
    return F.avg_pool2d(F.avg_pool2d(F.pad(x, (1, 1, 1, 1), "reflect"), 2, 1), 2, 1)


def total_loss(losses: Losses, weights: dict[str, float]) -> Tensor:
    """Σ weight · loss; a loss without a weight counts once, one of weight 0 not at all."""
    return sum(weights.get(name, 1.0) * loss for name, loss in losses.items() if weights.get(name, 1.0) != 0)


def train_baselines(settings: TrainBaselines) -> dict[str, Path]:
    """Train the baselines that `methods` names, each in the run's ``baselines/<name>``; stopped, it continues.

    C is the run's own; where there is none yet, it is trained as notebook 04 does by the preset.

    Returns:
        Each one's folder, by name.

    Raises:
        MissingArtefactError: the faces are not prepared yet.
        ConfigChangedError: a folder holds one trained with other values.
    """
    workspace = Workspace.of(settings)
    faces = Faces.open(workspace.require("faces"))
    folders = {name: workspace.path("baselines", name) for name in settings.methods}
    each = {name: own_settings(settings, name) for name in settings.methods}  # wrong values are found first
    if launched(settings, workspace.path("baselines")):
        return folders
    if not workspace.has(DECODED_AGE):
        common = {"dataset", "preset", "run", "runs_root", "seed", "device", "progress", "gpus", "nodes", "rendezvous"}
        wanted = settings.model_dump(include=common) | {"age_classifier": "decoded"}
        train_age_classifier(settings_of("train_ictm", wanted), faces)
    for name, folder in folders.items():
        train(BaselineTask(each[name], faces, workspace.path(DECODED_AGE)), each[name], folder)
    return folders
