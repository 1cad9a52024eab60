"""The training of classifiers of aligned faces: the judges of notebook 05 (3.3), and C, the classifier behind the decoder."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.checkpoint import CheckpointError, Weights
from ageflow.config import TrainClassifiers
from ageflow.data.faces import Faces
from ageflow.data.records import AgeGroups
from ageflow.device import device_of, reduced_precision, sent
from ageflow.run import MANIFEST, Manifest, Workspace, digest
from ageflow.training.distributed import launched, processes
from ageflow.training.loop import train
from ageflow.training.metrics import read_metrics
from ageflow.training.task import MicroBatch, Objective, Task, Values, begun, initial_weights
from ageflow.translation.classifier import Classifier

_HEAD = ("network.fc.weight", "network.fc.bias")
_PREVIEW_FACES = 4096  # held-out faces of a preview
_FEWEST = 20  # faces of a class and an attribute; fewer get no more weight each, or one face would count for hundreds


def augmented(x: Tensor, part: MicroBatch, moved: float = 1.0) -> Tensor:
    """Faces half mirrored; turned, shifted and scaled a little; brightness and contrast varied.

    Arguments:
        x: float in [0, 1], [B, 3, S, S].
        part: which rows of the batch they are.
        moved: how far they are turned, shifted and scaled; 1: as far as judges learn from.

    Returns:
        The same shape, in [0, 1], with gradients for `x`.
    """
    size, count = x.shape[3], len(x)
    drawn = part.rows(torch.rand(part.size, 7, device=x.device))  # for the whole batch, whatever it is cut into
    spread = drawn * 2 - 1
    mirror = torch.where(drawn[:, 0] < 0.5, -1.0, 1.0)
    shift, angle, zoom = spread[:, 1:3] * moved / 8, spread[:, 3] * moved * 0.15, 1 + spread[:, 4] * moved * 0.08
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    matrix = torch.stack([cosine * mirror, -sine, shift[:, 0], sine * mirror, cosine, shift[:, 1]], dim=1)
    grid = F.affine_grid(matrix.view(count, 2, 3), [count, 3, size, size], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    contrast = 1 + spread[:, 5].view(-1, 1, 1, 1) * 0.2
    return ((x - 0.5) * contrast + 0.5 + spread[:, 6].view(-1, 1, 1, 1) * 0.1).clamp(0, 1)


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
        self.settings, self.faces, self.device = settings, faces, device_of(settings.device)
        heads = {head: labelled(faces, head) for head in (name, *sorted(also))}
        labels = {head: values for head, (values, _) in heads.items()}
        self.targets = {head: numbers for head, (_, numbers) in heads.items()}
        known, split = (self.targets[name] >= 0).numpy(), faces.table["split"].to_numpy()
        self.rows = {half: np.flatnonzero(known & (split == half)) for half in ("train", "test")}
        self.weights = _balanced(self.targets[name], len(labels[name]), faces.table[[*balance]], self.rows["train"])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)  # the CPU's, which is put back
            classifier = Classifier(settings.architecture, labels.pop(name), faces.image_size, labels)
        weights = initial_weights(settings, folder or f"classifiers/{name}", "classifier", faces)
        if weights is not None:
            weights = _regrouped(weights, faces.age_groups, settings.iterations) if name == "age" else weights
            _fill(classifier, weights, name)
        self.modules = nn.ModuleDict({"classifier": classifier})
        parameters = list(classifier.parameters())
        self.objectives = [Objective(name, parameters, self.loss, settings.learning_rate, settings.weight_decay)]
        decided = settings.model_dump(mode="json") | {"balance": list(balance), "network": classifier.shape}
        self.manifest = Manifest({"faces": faces.fingerprint}, decided)
        self.networks = {"classifier": classifier.shape}

    def loss(self, part: MicroBatch) -> tuple[Tensor, Values]:
        """Weighted cross-entropy of a micro-batch."""
        rows = self.rows["train"][part.choose(len(self.rows["train"]), self.settings.seed).numpy()]
        images = augmented(sent(self.faces.images(rows), self.device).float() / 255, part)
        classifier = self.modules["classifier"]
        with reduced_precision(self.device):
            logits = classifier(images).float().split(classifier.sizes, dim=1)
        targets = [sent(target[rows], self.device) for target in self.targets.values()]
        accuracy = (logits[0].detach().argmax(1) == targets[0]).float().mean()
        # Not its own mean, which divides by the weights of the faces at hand: a batch cut up would be another loss.
        losses = sum(
            F.cross_entropy(scores, target, reduction="none", ignore_index=-1)
            for scores, target in zip(logits, targets, strict=True)
        )
        return (losses * sent(self.weights[rows], self.device)).mean(), {"accuracy": accuracy}

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
        accuracy = {}
        for (head, target), scores in zip(self.targets.items(), logits.split(classifier.sizes, dim=1), strict=True):
            right = pd.Series((scores.argmax(1) == target[rows]).numpy())[(target[rows] >= 0).numpy()]
            if head in classifier.also:
                accuracy |= {f"test/{head}_accuracy": right.mean()} if len(right) else {}
            else:
                by_class = right.groupby(target[rows].numpy()).mean()
                accuracy |= {"test/accuracy": right.mean(), "test/balanced_accuracy": by_class.mean()}
        return accuracy


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
    before = {name: begun(settings, f"classifiers/{name}") for name in names}
    for name, checkpoint in before.items():
        if checkpoint is not None:
            checkpoint.check_same(tasks[name].manifest, settings.step)
    if processes().first and any(each is None or each.iteration < settings.iterations for each in before.values()):
        (root / MANIFEST).unlink(missing_ok=True)  # until all of them are trained
    for name, folder in folders.items():
        train(tasks[name], settings, folder)
    if processes().first:
        inputs = {name: Manifest.read(folder).fingerprint for name, folder in folders.items()}
        Manifest(inputs, fingerprint=digest(inputs), details={"classifiers": names}).write(root)
    return folders


def held_out_accuracy(folders: Mapping[str, Path]) -> pd.DataFrame:
    """The last validation of each classifier: its accuracy on held-out real faces, plain and per class averaged."""
    columns = {"test/accuracy": "accuracy", "test/balanced_accuracy": "balanced_accuracy"}
    last = {name: read_metrics(folder).filter(columns).dropna().iloc[-1] for name, folder in folders.items()}
    return pd.DataFrame(last).T.rename(columns=columns).rename_axis("classifier")


def labelled(faces: Faces, name: str) -> tuple[tuple[str, ...], Tensor]:
    """The labels of `age` or an attribute, and each face's number among them, int64 [N]; −1 where it is not known.

    An attribute's labels are those of the training faces: of any other there is nothing to learn.
    """
    values = pd.Series(faces.groups) if name == "age" else faces.table[name]
    present = values[(faces.table["split"] == "train").to_numpy()].dropna().unique()
    classes = range(len(faces.age_groups)) if name == "age" else sorted(present)
    return faces.age_groups.labels if name == "age" else tuple(classes), numbered(values, classes)


def numbered(values: Sequence[object], labels: Sequence[object]) -> Tensor:
    """The number of each value among the labels, int64 [N]; −1 where it is none of them."""
    return torch.from_numpy(pd.Index(labels).get_indexer(values).astype(np.int64))


def _regrouped(weights: Weights, age_groups: AgeGroups, iterations: int) -> Weights:
    """An age classifier's weights with logits for other age groups, to be trained; others, and of these, as they are.

    Of an age that is read with a normal error the logits are quadratic in the groups' centres: those of other centres
    lie on the quadratic through these.

    Raises:
        CheckpointError: they are of other age groups, and without `iterations`.
    """
    labels = weights.config["labels"]
    if not labels[-1].endswith("+") or labels == [*age_groups.labels]:
        return weights
    theirs, ours = (", ".join(each) for each in (labels, age_groups.labels))
    what = f"{weights.source} tells the age groups {theirs} apart, and the run has {ours}"
    if not iterations:
        do = "pass age_classifier_iterations to train it further, or age_classifier_from = nothing for new weights"
        raise CheckpointError(f"{what}: {do}")
    warnings.warn(f"{what}: its logits are brought to these, and trained", stacklevel=3)
    old, count = AgeGroups.of_labels(labels), len(labels)
    powers = [np.vander(np.array(groups.centres) / 10, min(3, count)) for groups in (age_groups, old)]
    by = torch.from_numpy(powers[0] @ np.linalg.pinv(powers[1])).float()
    head = {name: torch.cat([by @ weights.state[name][:count], weights.state[name][count:]]) for name in _HEAD}
    return replace(weights, state=weights.state | head, config=weights.config | {"labels": [*age_groups.labels]})


def _fill(classifier: Classifier, weights: Weights, name: str) -> None:
    """Load weights into a classifier of `name` and its `also`, the logits by their names and labels.

    A head that the weights lack keeps the classifier's own logits, and what it is not asked for is left out: from weights
    that predict several things begins a judge of any of them, or of another. Weights that predict one are for that alone.
    """
    shape = classifier.shape
    labels, others = weights.config["labels"], weights.config.get("also", {})
    theirs = {"age" if labels[-1].endswith("+") else name: labels, **others}
    mine = {name: shape["labels"], **shape.pop("also")}
    fits = weights.config.get("architecture") == classifier.architecture  # otherwise `fill` says what does not
    if fits and theirs.get(name, others and mine[name]) == mine[name]:
        state = dict(weights.state)
        for tensor in _HEAD:
            known = dict(zip(theirs, state[tensor].split([len(values) for values in theirs.values()]), strict=True))
            own = zip(mine, classifier.state_dict()[tensor].split(classifier.sizes), strict=True)
            state[tensor] = torch.cat([known[head] if mine[head] == theirs.get(head) else new for head, new in own])
        weights = replace(weights, state=state, config=weights.config | {"labels": mine[name]})
    weights.fill(classifier, shape)


def _balanced(target: Tensor, labels: int, attributes: pd.DataFrame, rows: np.ndarray) -> Tensor:
    """The weight of each face of `rows`, float32 [N]: every class the same, and in it every value of the attributes."""
    learned = attributes.iloc[rows].fillna("unknown").assign(label=target[rows].numpy())
    weight = 1 / learned.groupby(list(learned.columns))["label"].transform("size").clip(lower=_FEWEST)
    weight = weight / weight.groupby(learned["label"]).transform("sum") * (len(rows) / labels)
    weights = torch.zeros(len(target))
    weights[rows] = torch.from_numpy(weight.to_numpy(dtype=np.float32))
    return weights
