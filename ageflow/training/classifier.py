"""The judges: an age classifier, and a classifier per attribute (3.3)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.config import TrainClassifiers
from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.memory import no_garbage_collection
from ageflow.storage import CheckpointError, device_of, latest, load_state, write_atomically
from ageflow.training.checkpoint import refuse_another
from ageflow.training.distributed import processes
from ageflow.training.initial import Weights, find_unless_begun, warn_of_known_people, weights_of
from ageflow.training.launch import launched
from ageflow.training.live import live
from ageflow.training.loop import train
from ageflow.training.metrics import read_metrics
from ageflow.training.task import Piece, Task, Turn
from ageflow.workspace import Workspace

__all__ = [
    "Classifier",
    "ClassifierTask",
    "augmented",
    "held_out_accuracy",
    "labelled",
    "load_classifier",
    "train_classifiers",
]

_PREVIEW_FACES = 4096  # held-out faces that a preview is of
_FEWEST = 20  # faces of a class and an attribute; fewer weigh no more each, or one face would count for hundreds
# ImageNet's, which torchvision's networks expect where a user starts them from its weights.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """A torchvision network on aligned faces.

    Arguments:
        architecture: ``resnet18``, ``resnet50`` or ``resnet101`` (the paper's); ``resnet14`` is resnet18 without its
            last stage, which sees 2×2 positions of a face of 64×64 and holds three in four of the weights.
        labels: what the logits stand for, in order.
        image_size: side of the faces; below 64 the pooling after the first layer is left out.
        also: attributes that the same network tells too, and their labels; their logits follow, in the names' order.
    """

    def __init__(
        self,
        architecture: str,
        labels: tuple[str, ...],
        image_size: int,
        also: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        with no_garbage_collection():
            from torchvision.models import get_model  # here: it takes three seconds to import

        super().__init__()
        self.labels = tuple(labels)
        self.also = {name: tuple(values) for name, values in sorted((also or {}).items())}
        self.sizes = [len(self.labels), *map(len, self.also.values())]
        whole = "resnet18" if architecture == "resnet14" else architecture
        self.network = get_model(whole, weights=None, num_classes=sum(self.sizes))
        if architecture == "resnet14":
            self.network.layer4 = nn.Identity()
            self.network.fc = nn.Linear(self.network.fc.in_features // 2, sum(self.sizes))
        if image_size < 64:  # four halvings are enough
            self.network.maxpool = nn.Identity()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Faces, uint8 or float in [0, 1], [B, 3, S, S] → logits [B, labels] (and those of `also` after them)."""
        x = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images.to(self.mean.dtype)
        x = ((x - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)
        return self.network(x)

    def apart(self, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of `forward` → those of `labels`, and those of each attribute of `also`."""
        first, *others = logits.split(self.sizes, dim=1)
        return first, dict(zip(self.also, others, strict=True))


class ClassifierTask(Task):
    """Cross-entropy on mirrored and slightly shifted faces, each class weighted alike.

    Arguments:
        settings: architecture, iterations and so on.
        faces: the prepared faces; those of the training split whose label is known are learned from.
        name: ``age``, or an attribute.
        regardless_of: attributes whose values weigh alike within each class, so that they tell nothing of it.
        also: attributes that the same network learns to tell; a face whose value is not known says nothing there.
        part: what of a run, or of the weights that ship, `init_from` means; None: `name`.
    """

    def __init__(
        self,
        settings: TrainClassifiers,
        faces: Faces,
        name: str,
        regardless_of: Sequence[str] = (),
        also: Sequence[str] = (),
        part: str | None = None,
    ) -> None:
        self.settings = settings
        self.device = device_of(settings.device)
        labels, self.target = labelled(faces, name)
        told = {attribute: labelled(faces, attribute) for attribute in also}
        self.faces = faces
        self.also = {attribute: target for attribute, (_, target) in told.items()}
        known, split = (self.target >= 0).numpy(), faces.table["split"].to_numpy()
        self.rows = {part: np.flatnonzero(known & (split == part)) for part in ("train", "test")}
        self.weights = _alike(self.target, len(labels), faces.table[[*regardless_of]], self.rows["train"])

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)  # the CPU's, which is put back
            classifier = Classifier(
                settings.architecture,
                labels,
                faces.image_size,
                {attribute: values for attribute, (values, _) in told.items()},
            )
        path = None
        if settings.init_from is not None:
            folder = (part,) if part else ("classifiers", name)
            path = find_unless_begun(settings.init_from, settings, part or name, *folder)
        if path is not None:
            warn_of_known_people(settings.init_from, path, faces)
            weights = weights_of(path, part or name)
            if weights is None:
                raise CheckpointError(f"{path} is not a file of the kit: a judge begins from a run or a released file")
            shape = {"architecture": settings.architecture, "labels": classifier.labels}
            _with_heads_of(classifier, weights, name).fill(classifier, shape | {"image_size": faces.image_size})
        self.modules = nn.ModuleDict({"classifier": classifier})
        parameters = list(classifier.parameters())
        self.turns = [Turn(name, parameters, self.loss, settings.learning_rate, settings.weight_decay)]
        self.config = settings.model_dump(mode="json") | {
            "classifier": {
                "architecture": settings.architecture,
                "labels": list(labels),
                "image_size": faces.image_size,
            }
            | ({"also": {attribute: list(values) for attribute, values in classifier.also.items()}} if told else {}),
            "faces": faces.fingerprint,
            "regardless_of": list(regardless_of) or None,  # None: as before there was such a thing
        }

    def start(self) -> None:
        """Nothing depends on data."""

    def loss(self, piece: Piece) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted cross-entropy of a piece of a batch."""
        rows = self.rows["train"][piece.choose(len(self.rows["train"]), self.settings.seed).numpy()]
        images = augmented(self.faces.images(rows).to(self.device).float() / 255, piece)
        target = self.target[rows].to(self.device)
        classifier = self.modules["classifier"]
        logits, others = classifier.apart(classifier(images))
        accuracy = (logits.detach().argmax(1) == target).float().mean()
        # Not its own mean, which divides by the weights of the faces at hand: a batch cut up would be another loss.
        losses = F.cross_entropy(logits, target, reduction="none")
        for attribute, told in others.items():
            value = self.also[attribute][rows].to(self.device)
            losses = losses + F.cross_entropy(told, value, reduction="none", ignore_index=-1)
        losses = losses * self.weights[rows].to(self.device)
        return losses.mean(), {"accuracy": accuracy}

    @torch.inference_mode()
    def preview(self, averaged: nn.ModuleDict, folder: Path, iteration: int) -> dict[str, float]:
        """Accuracy on held-out faces, plain and with each class counted alike: on some, at the end on all of them."""
        rows = self.rows["test"]
        if len(rows) == 0:
            return {}
        if iteration < self.settings.iterations:  # the other processes wait
            rows = rows[:: -(-len(rows) // _PREVIEW_FACES)]
        classifier = averaged["classifier"]
        logits = torch.cat(
            [
                classifier(self.faces.images(rows[start : start + 64]).to(self.device)).cpu()
                for start in range(0, len(rows), 64)
            ]
        )
        logits, others = classifier.apart(logits)
        predicted = logits.argmax(1)
        target = self.target[rows]
        right = predicted == target
        by_class = [right[target == label].float().mean() for label in target.unique()]
        accuracy = {
            "test/accuracy": float(right.float().mean()),
            "test/balanced_accuracy": float(torch.stack(by_class).mean()),
        }
        for attribute, told in others.items():
            value = self.also[attribute][rows]
            known = value >= 0
            if known.any():
                accuracy[f"test/{attribute}_accuracy"] = float((told.argmax(1) == value)[known].float().mean())
        return accuracy


def train_classifiers(settings: TrainClassifiers) -> dict[str, Path]:
    """Train the age classifier and one classifier per attribute of which the training faces have two values or more.

    Stopped, it goes on.

    Returns:
        Each classifier's folder, by name (``age``, ``gender``, …).

    Raises:
        MissingArtefactError: the faces are not prepared yet.
    """
    workspace = Workspace.of(settings)
    faces = Faces.open(workspace.require("faces"))
    told = [name for name in faces.attributes if len(labelled(faces, name)[0]) > 1]
    folders = {name: workspace.path("classifiers", name) for name in ("age", *told)}
    with live(workspace.path("classifiers"), settings.progress):
        if launched(settings, workspace.path("classifiers")):
            return folders
        done = workspace.path("classifiers", "done.json")
        # Made first: what is wrong with the settings is told before anything that is there is touched.
        tasks = {name: ClassifierTask(settings, faces, name) for name in folders}
        for name, folder in folders.items():
            begun = None if settings.restart else latest(folder)
            if begun is not None:
                refuse_another(begun.config, tasks[name].config, folder, settings.step)
        if processes().first and not all(_finished(settings, folder) for folder in folders.values()):
            done.unlink(missing_ok=True)  # until all of them are: a judge that is half trained judges nothing
        for name, folder in folders.items():
            train(tasks[name], settings, folder)
    told = json.dumps(sorted(folders)).encode()
    # Opened again it stays as it is, or the batch would take the judges for others.
    if processes().first and not (done.is_file() and done.read_bytes() == told):
        write_atomically(done, told)
    return folders


def _finished(settings: TrainClassifiers, folder: Path) -> bool:
    """Whether the judge in `folder` is trained as far as it is asked to be."""
    done = folder / "done.json"
    return not settings.restart and done.is_file() and json.loads(done.read_text())["iterations"] >= settings.iterations


def load_classifier(folder: Path, device: str = "auto") -> Classifier:
    """A trained classifier, with its averaged weights, fixed.

    Raises:
        CheckpointError: the folder holds none.
    """
    checkpoint = latest(folder)
    if checkpoint is None or "classifier" not in checkpoint.config:
        raise CheckpointError(f"no classifier in {folder}: run 05_train_classifiers.ipynb first")
    classifier = Classifier(**checkpoint.config["classifier"])
    load_state(classifier, folder, "classifier")
    return classifier.to(device_of(device)).eval().requires_grad_(False)


def held_out_accuracy(folders: Mapping[str, Path]) -> pd.DataFrame:
    """The last validation of each classifier: its accuracy on held-out real faces, plain and per class averaged."""
    rows = {}
    for name, folder in folders.items():
        metrics = read_metrics(folder)
        known = [column for column in ("test/accuracy", "test/balanced_accuracy") if column in metrics]
        rows[name] = {column.removeprefix("test/"): metrics[column].dropna().iloc[-1] for column in known}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("classifier")


def labelled(faces: Faces, name: str) -> tuple[tuple[str, ...], Tensor]:
    """The labels of `age` or an attribute, and each face's number among them, int64 [N]; −1 where it is not known.

    An attribute's labels are those of the training faces: of any other there is nothing to learn.
    """
    values = pd.Series(faces.groups) if name == "age" else faces.table[name]
    there = values[faces.table["split"] == "train"].dropna().unique()
    classes = range(len(AGE_GROUPS)) if name == "age" else sorted(there)
    number = {value: index for index, value in enumerate(classes)}
    labels = AGE_GROUPS if name == "age" else tuple(classes)
    return labels, torch.tensor([number.get(value, -1) for value in values])


def _with_heads_of(classifier: Classifier, weights: Weights, name: str) -> Weights:
    """`weights` with logits for what `classifier` tells, `name` and its `also`, by their names and labels.

    What they do not know keeps the classifier's own logits, and what it is not asked for is left out: from weights
    that tell several things begins a judge of any of them, or of another. Weights that tell one are for that alone.
    """
    labels, others = weights.config.get("labels"), weights.config.get("also", {})
    theirs = {"age" if labels == [*AGE_GROUPS] else name: labels, **others}
    mine = {name: [*classifier.labels], **{also: [*labels] for also, labels in classifier.also.items()}}
    if theirs.get(name, mine[name] if others else None) != mine[name]:
        return weights  # `fill` says what they tell
    state = dict(weights.state)
    if state["network.fc.weight"].shape[1] != classifier.network.fc.in_features:
        return weights  # another network: `fill` says so
    for tensor in ("network.fc.weight", "network.fc.bias"):
        known = dict(zip(theirs, state[tensor].split([len(labels) for labels in theirs.values()]), strict=True))
        own = dict(zip(mine, classifier.state_dict()[tensor].split(classifier.sizes), strict=True))
        state[tensor] = torch.cat([known[head] if mine[head] == theirs.get(head) else own[head] for head in mine])
    return replace(weights, state=state, config=weights.config | {"labels": mine[name]})


def _alike(target: Tensor, labels: int, attributes: pd.DataFrame, rows: np.ndarray) -> Tensor:
    """What each face of `rows` weighs, float32 [N]: every class the same, and in it every value of the attributes."""
    learned = attributes.iloc[rows].fillna("unknown").assign(label=target[rows].numpy())
    cell = learned.groupby(list(learned.columns))["label"].transform("size")
    weight = 1 / cell.clip(lower=_FEWEST)
    weight = weight / weight.groupby(learned["label"]).transform("sum") * (len(rows) / labels)
    weights = torch.zeros(len(target))
    weights[rows] = torch.from_numpy(weight.to_numpy(dtype=np.float32))
    return weights


def augmented(x: Tensor, piece: Piece, turned: float = 1.0) -> Tensor:
    """Faces half mirrored; turned, shifted and scaled a little; brightness and contrast varied.

    Arguments:
        x: float in [0, 1], [B, 3, S, S].
        piece: which rows of the batch they are.
        turned: how far they are turned, shifted and scaled; 1 as far as judges learn from.

    Returns:
        The same shape, in [0, 1], with gradients for `x`.
    """
    size, count = x.shape[3], len(x)
    drawn = piece.of(torch.rand(piece.size, 7, device=x.device))  # for the whole batch, whatever it is cut into
    spread = drawn * 2 - 1
    moved = spread * turned
    mirror = torch.where(drawn[:, 0] < 0.5, -1.0, 1.0)
    shift, angle, zoom = moved[:, 1:3] / 8, moved[:, 3] * 0.15, 1 + moved[:, 4] * 0.08
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    matrix = torch.stack([cosine * mirror, -sine, shift[:, 0], sine * mirror, cosine, shift[:, 1]], dim=1)
    grid = F.affine_grid(matrix.view(count, 2, 3), [count, 3, size, size], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    contrast = 1 + spread[:, 5].view(-1, 1, 1, 1) * 0.2
    brightness = spread[:, 6].view(-1, 1, 1, 1) * 0.1
    return ((x - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
