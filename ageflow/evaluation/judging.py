"""Faces before the judges: an age classifier, a classifier per attribute, and an embedder (3.3)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.identity import Embedder, cosine
from ageflow.flows.glow import to_uint8
from ageflow.progress import progress_bar
from ageflow.training.classifier import Classifier, load_classifier

__all__ = ["ATTRIBUTES", "Judges", "classifier_names", "judge_faces", "judge_method"]


# Columns of the faces' table that a method may ask for.
ATTRIBUTES = ("gender", "race")


class Method(Protocol):
    """What is judged; see `ageflow.translation.methods`."""

    def translate(
        self, images: Tensor, target: Tensor, source: Tensor | None = None, attributes: Any = None
    ) -> Tensor: ...


@dataclass(frozen=True)
class Judges:
    """The classifiers and the embedder of a run.

    Arguments:
        age: classifier whose labels are the four age groups.
        attributes: a classifier per attribute, by name.
        embedder: who tells identities.
    """

    age: Classifier
    attributes: dict[str, Classifier]
    embedder: Embedder

    @classmethod
    def load(cls, folder: Path, embedder: Embedder, device: str = "auto") -> "Judges":
        """The classifiers that notebook 05 left in `folder`, and `embedder`."""
        names = classifier_names(folder)
        return cls(
            load_classifier(folder / "age", device),
            {name: load_classifier(folder / name, device) for name in names if name != "age"},
            embedder,
        )

    @torch.inference_mode()
    def labels(self, images: Tensor) -> pd.DataFrame:
        """What the classifiers say of faces uint8 [B,3,S,S]: column predicted (group number), <attribute>_predicted."""
        images = images.to(next(self.age.parameters()).device)
        told: dict[str, Any] = {"predicted": self.age(images).argmax(dim=1).cpu().numpy()}
        for name, classifier in self.attributes.items():
            answers = classifier(images).argmax(dim=1).cpu().numpy()
            told[f"{name}_predicted"] = np.array(classifier.labels, dtype=object)[answers]
        return pd.DataFrame(told)


def classifier_names(folder: Path) -> list[str]:
    """The classifiers that a finished notebook 05 left in its folder: ``age`` and the attributes'."""
    return json.loads((folder / "done.json").read_text())


def judge_faces(
    faces: Faces, chosen: np.ndarray, judges: Judges, batch: int = 64, progress: bool = True
) -> tuple[pd.DataFrame, Tensor]:
    """Put real faces before the judges.

    Arguments:
        faces: prepared faces.
        chosen: which of them, [M] int64.
        judges: who judges.
        batch: faces at a time.
        progress: draw a bar.

    Returns:
        One row a face: face, identity, source (its group), target (the same), predicted, attributes and their
        predictions, cosine_same (mean cosine with the other faces of its identity; NaN where there is none) and
        cosine_other (with the faces of all other identities); and the faces' embeddings [M,d].
    """
    told, embeddings = [], []
    with progress_bar(total=len(chosen), unit="face", title="real faces", show=progress) as bar:
        for start in range(0, len(chosen), batch):
            images = faces.images(chosen[start : start + batch])
            told.append(judges.labels(images))
            embeddings.append(judges.embedder(images))
            bar.update(len(images))
    embedding = torch.cat(embeddings)
    rows = _rows(faces, chosen, faces.groups[chosen], pd.concat(told, ignore_index=True), judges)
    return rows.assign(**_cosines_between(embedding.numpy(), faces.identities[chosen])), embedding


def judge_method(
    method: Method,
    name: str,
    faces: Faces,
    chosen: np.ndarray,
    judges: Judges,
    embeddings: Tensor,
    batch: int = 64,
    progress: bool = True,
) -> pd.DataFrame:
    """Translate every face into the groups that are not its own and put the results before the judges.

    Faces are judged as they would be saved, rounded to 8 bits.

    Arguments:
        method: the method; `name` is what the rows call it.
        faces: prepared faces.
        chosen: which of them, [M] int64.
        judges: who judges.
        embeddings: [M,d], of those real faces, from `judge_faces`.
        batch: faces at a time.
        progress: draw a bar.

    Returns:
        One row a face × target: method, face, identity, source, target, predicted, cosine, attributes and their
        predictions.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    own = faces.groups[chosen]
    row, target = np.nonzero(own[:, None] != np.arange(len(AGE_GROUPS)))
    kept = []
    with progress_bar(total=len(row), unit="face", title=name, show=progress) as bar:
        for start in range(0, len(row), batch):
            which, targets = row[start : start + batch], target[start : start + batch]
            images = _translate(method, name, faces, chosen[which], targets)
            told = judges.labels(images)
            told.insert(1, "cosine", cosine(embeddings[torch.from_numpy(which)], judges.embedder(images)).numpy())
            kept.append(_rows(faces, chosen[which], targets, told, judges))
            bar.update(len(which))
    judged = pd.concat(kept, ignore_index=True)
    judged.insert(0, "method", name)
    return judged


def _translate(method: Method, name: str, faces: Faces, chosen: np.ndarray, targets: np.ndarray) -> Tensor:
    images = method.translate(
        faces.images(chosen),
        torch.from_numpy(targets),
        source=torch.from_numpy(faces.groups[chosen]),
        attributes={name: faces.table[name].iloc[chosen].tolist() for name in ATTRIBUTES if name in faces.table},
    )
    finite = torch.isfinite(images).flatten(1).all(dim=1).cpu().numpy()
    if not finite.all():
        first = faces.table["face"].iloc[chosen[~finite][0]]
        raise FloatingPointError(
            f"method {name!r} made {int((~finite).sum())} of {len(chosen)} faces with values that are not finite "
            f"(the first from face {first}): look at its training curves, and train it again"
        )
    return to_uint8(images)


def _rows(faces: Faces, chosen: np.ndarray, targets: np.ndarray, told: pd.DataFrame, judges: Judges) -> pd.DataFrame:
    table = faces.table.iloc[chosen]
    rows = {
        "face": table["face"].to_numpy(),
        "identity": table["identity"].to_numpy(),
        "source": faces.groups[chosen],
        "target": targets,
    }
    for name, classifier in judges.attributes.items():
        label = table[name].to_numpy(dtype=object)
        rows[name] = label
        # A race too rare to train on is no label of the classifier's: it is not asked about such a face.
        asked = pd.Series(label).isin(classifier.labels).to_numpy()
        told[f"{name}_predicted"] = told[f"{name}_predicted"].where(asked, None)
    return pd.concat([pd.DataFrame(rows), told.reset_index(drop=True)], axis=1)


def _cosines_between(embeddings: np.ndarray, identities: np.ndarray) -> dict[str, np.ndarray]:
    # By sums of embeddings: N·d operations where all pairs would be N²·d.
    codes, _ = pd.factorize(identities)
    counts = np.bincount(codes)
    per_identity = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(per_identity, codes, embeddings)
    with_own = np.einsum("nd,nd->n", embeddings, per_identity[codes])
    with_all = embeddings @ per_identity.sum(axis=0)
    own, rest = counts[codes] - 1, len(codes) - counts[codes]
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 where there is no such face: NaN
        same = np.where(own > 0, (with_own - np.einsum("nd,nd->n", embeddings, embeddings)) / own, np.nan)
        other = np.where(rest > 0, (with_all - with_own) / rest, np.nan)
    return {"cosine_same": same, "cosine_other": other}
