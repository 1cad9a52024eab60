"""Train classifiers of faces: the judges of notebook 05, an age classifier and one per attribute (3.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.checkpoint import Weights, check_same_training, latest
from ageflow.config import TrainClassifiers
from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.device import device_of
from ageflow.run import MANIFEST, Manifest, Workspace, digest
from ageflow.training.classifier import Classifier, augmented
from ageflow.training.distributed import processes
from ageflow.training.launch import launched
from ageflow.training.loop import train
from ageflow.training.metrics import read_metrics
from ageflow.training.task import MicroBatch, Objective, Task, Values, initial_weights

_PREVIEW_FACES = 4096  # held-out faces of a preview
_FEWEST = 20  # faces of a class and an attribute; fewer get no more weight each, or one face would count for hundreds


class ClassifierTask(Task):
    """Cross-entropy on mirrored and slightly shifted faces, all classes weighted alike.

    Arguments:
        settings: architecture, iterations and so on.
        faces: the prepared faces; those of the training split whose label is known are learned from.
        name: ``age``, or an attribute.
        folder: the training's in the run, by which `init_from` finds weights.
        balance: attributes whose values weigh alike within each class, so that they predict nothing of it.
        also: attributes that the same network learns to predict; a face whose value is not known has no loss there.
    """

    def __init__(
        self,
        settings: TrainClassifiers,
        faces: Faces,
        name: str,
        folder: str | None = None,
        balance: Sequence[str] = (),
        also: Sequence[str] = (),
    ) -> None:
        self.settings, self.faces = settings, faces
        self.device = device_of(settings.device)
        labels, self.target = labelled(faces, name)
        self.also = {attribute: labelled(faces, attribute)[1] for attribute in also}
        known, split = (self.target >= 0).numpy(), faces.table["split"].to_numpy()
        self.rows = {half: np.flatnonzero(known & (split == half)) for half in ("train", "test")}
        self.weights = _balanced(self.target, len(labels), faces.table[[*balance]], self.rows["train"])
        others = {attribute: labelled(faces, attribute)[0] for attribute in also}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)  # the CPU's, which is put back
            classifier = Classifier(settings.architecture, labels, faces.image_size, others)
        weights = initial_weights(settings, folder or f"classifiers/{name}", "classifier", faces)
        if weights is not None:
            shape = {name: value for name, value in classifier.shape.items() if name != "also"}
            _with_heads_of(classifier, weights, name).fill(classifier, shape)
        self.modules = nn.ModuleDict({"classifier": classifier})
        parameters = list(classifier.parameters())
        self.objectives = [Objective(name, parameters, self.loss, settings.learning_rate, settings.weight_decay)]
        decided = settings.model_dump(mode="json") | {"balance": list(balance), "network": classifier.shape}
        self.manifest = Manifest({"faces": faces.fingerprint}, decided)
        self.networks = {"classifier": classifier.shape}

    def loss(self, part: MicroBatch) -> tuple[Tensor, Values]:
        """Weighted cross-entropy of a micro-batch."""
        rows = self.rows["train"][part.choose(len(self.rows["train"]), self.settings.seed).numpy()]
        images = augmented(self.faces.images(rows).to(self.device).float() / 255, part)
        target = self.target[rows].to(self.device)
        classifier = self.modules["classifier"]
        logits, others = classifier.split_logits(classifier(images))
        accuracy = (logits.detach().argmax(1) == target).float().mean()
        # Not its own mean, which divides by the weights of the faces at hand: a batch cut up would be another loss.
        losses = F.cross_entropy(logits, target, reduction="none")
        for attribute, attribute_logits in others.items():
            value = self.also[attribute][rows].to(self.device)
            losses = losses + F.cross_entropy(attribute_logits, value, reduction="none", ignore_index=-1)
        losses = losses * self.weights[rows].to(self.device)
        return losses.mean(), {"accuracy": accuracy}

    @torch.inference_mode()
    def preview(self, averaged: nn.ModuleDict, folder: Path, iteration: int) -> dict[str, float]:
        """Accuracy on held-out faces, plain and averaged over the classes: on some, at the end on all of them."""
        rows = self.rows["test"]
        if len(rows) == 0:
            return {}
        if iteration < self.settings.iterations:  # the other processes wait
            rows = rows[:: -(-len(rows) // _PREVIEW_FACES)]
        classifier = averaged["classifier"]
        batches = np.array_split(rows, -(-len(rows) // 64))
        logits = torch.cat([classifier(self.faces.images(batch).to(self.device)).cpu() for batch in batches])
        logits, others = classifier.split_logits(logits)
        target = self.target[rows]
        right = logits.argmax(1) == target
        by_class = torch.stack([right[target == label].float().mean() for label in target.unique()])
        accuracy = {"test/accuracy": right.float().mean(), "test/balanced_accuracy": by_class.mean()}
        for attribute, attribute_logits in others.items():
            value = self.also[attribute][rows]
            if (value >= 0).any():
                right = (attribute_logits.argmax(1) == value)[value >= 0]
                accuracy[f"test/{attribute}_accuracy"] = right.float().mean()
        return {name: float(value) for name, value in accuracy.items()}


def train_classifiers(settings: TrainClassifiers) -> dict[str, Path]:
    """Train the age classifier and one classifier per attribute of which the training faces have two values or more.

    Stopped, it continues.

    Returns:
        Each classifier's folder, by name (``age``, ``gender``, …).

    Raises:
        MissingArtefactError: the faces are not prepared yet.
    """
    workspace = Workspace.of(settings)
    faces, root = Faces.open(workspace.require("faces")), workspace.path("classifiers")
    names = ["age", *(name for name in faces.attributes if len(labelled(faces, name)[0]) > 1)]
    folders = {name: root / name for name in names}
    if launched(settings, root):
        return folders
    # Made first: wrong settings are found before anything that is there is touched.
    tasks = {name: ClassifierTask(settings, faces, name) for name in names}
    finished = []
    for name, folder in folders.items():
        begun = None if settings.restart else latest(folder)
        if begun is not None:
            check_same_training(begun, tasks[name].manifest, folder, settings.step)
        manifest = Manifest.read(folder) if begun else None
        finished.append(manifest is not None and manifest.details["iterations"] >= settings.iterations)
    if processes().first and not all(finished):
        (root / MANIFEST).unlink(missing_ok=True)  # until all of them are trained
    for name, folder in folders.items():
        train(tasks[name], settings, folder)
    if processes().first:
        inputs = {name: Manifest.read(folder).fingerprint for name, folder in folders.items()}
        Manifest(inputs, fingerprint=digest(inputs), details={"classifiers": names}).write(root)
    return folders


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
    present = values[faces.table["split"] == "train"].dropna().unique()
    classes = range(len(AGE_GROUPS)) if name == "age" else sorted(present)
    number = {value: index for index, value in enumerate(classes)}
    labels = AGE_GROUPS if name == "age" else tuple(classes)
    return labels, torch.tensor([number.get(value, -1) for value in values])


def _with_heads_of(classifier: Classifier, weights: Weights, name: str) -> Weights:
    """`weights` with logits for what `classifier` predicts, `name` and its `also`, by their names and labels.

    A head that they lack keeps the classifier's own logits, and what it is not asked for is left out: from weights
    that predict several things begins a judge of any of them, or of another. Weights that predict one are for that alone.
    """
    labels, others = weights.config.get("labels"), weights.config.get("also", {})
    theirs = {"age" if labels == [*AGE_GROUPS] else name: labels, **others}
    mine = {name: [*classifier.labels], **{also: [*values] for also, values in classifier.also.items()}}
    if theirs.get(name, mine[name] if others else None) != mine[name]:
        return weights  # `fill` names the labels
    state = dict(weights.state)
    if state["network.fc.weight"].shape[1] != classifier.network.fc.in_features:
        return weights  # another network: `fill` names it
    for tensor in ("network.fc.weight", "network.fc.bias"):
        known = dict(zip(theirs, state[tensor].split([len(values) for values in theirs.values()]), strict=True))
        own = dict(zip(mine, classifier.state_dict()[tensor].split(classifier.sizes), strict=True))
        state[tensor] = torch.cat([known[head] if mine[head] == theirs.get(head) else own[head] for head in mine])
    return replace(weights, state=state, config=weights.config | {"labels": mine[name]})


def _balanced(target: Tensor, labels: int, attributes: pd.DataFrame, rows: np.ndarray) -> Tensor:
    """The weight of each face of `rows`, float32 [N]: every class the same, and in it every value of the attributes."""
    learned = attributes.iloc[rows].fillna("unknown").assign(label=target[rows].numpy())
    cell = learned.groupby(list(learned.columns))["label"].transform("size")
    weight = 1 / cell.clip(lower=_FEWEST)
    weight = weight / weight.groupby(learned["label"]).transform("sum") * (len(rows) / labels)
    weights = torch.zeros(len(target))
    weights[rows] = torch.from_numpy(weight.to_numpy(dtype=np.float32))
    return weights
