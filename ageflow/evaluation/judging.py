"""Faces before the judges: an age classifier, a classifier per attribute, and an embedder (3.3)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.identity import Embedder, cosine
from ageflow.evaluation.parts import Parts, in_batches, pop_tensor
from ageflow.evaluation.second_judge import SecondAgeJudge
from ageflow.flows.glow import to_uint8
from ageflow.run import Manifest
from ageflow.training.classifier import Classifier, load_classifier
from ageflow.translation.ages import GROUP_CENTRES

# Columns of the faces' table that a method may ask for.
ATTRIBUTES = ("gender", "race")


class Method(Protocol):
    """What is judged; see `ageflow.translation.methods`."""

    def translate(
        self, images: Tensor, target: Tensor, source: Tensor | None = None, attributes: Any = None
    ) -> Tensor: ...


class Features(Protocol):
    """Whose features KID compares; see `ageflow.evaluation.realism`."""

    name: str

    def __call__(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Judges:
    """The judges of a run.

    Arguments:
        age: classifier whose labels are the four age groups.
        attributes: a classifier per attribute, by name.
        embedder: who tells identities.
        second: the age judge that the run did not train.
    """

    age: Classifier
    attributes: dict[str, Classifier]
    embedder: Embedder
    second: SecondAgeJudge

    @classmethod
    def load(cls, folder: Path, embedder: Embedder, device: str = "auto") -> "Judges":
        """The classifiers that notebook 05 left in `folder`, and `embedder`."""
        names = classifier_names(folder)
        return cls(
            load_classifier(folder / "age", device),
            {name: load_classifier(folder / name, device) for name in names if name != "age"},
            embedder,
            SecondAgeJudge(device),
        )

    @torch.inference_mode()
    def labels(self, images: Tensor) -> pd.DataFrame:
        """What the classifiers say of faces uint8 [B,3,S,S].

        Returns:
            One row a face: predicted (group number), predicted_age (years), second_age (the second judge's years)
            and <attribute>_predicted.
        """
        images = images.to(next(self.age.parameters()).device)
        told: dict[str, Any] = self.ages(images)
        for name, classifier in self.attributes.items():
            answers = classifier(images).argmax(dim=1).cpu().numpy()
            told[f"{name}_predicted"] = np.array(classifier.labels, dtype=object)[answers]
        return pd.DataFrame(told)

    @torch.inference_mode()
    def ages(self, images: Tensor) -> dict[str, np.ndarray]:
        """The ages of faces uint8 [B,3,S,S]: predicted, predicted_age and second_age, as in `labels`.

        predicted_age is the classifier's expectation: the groups' centres, weighted by their probabilities.
        """
        logits = self.age(images.to(next(self.age.parameters()).device)).float().cpu()
        years = logits.softmax(dim=1) @ torch.tensor(GROUP_CENTRES)
        return {
            "predicted": logits.argmax(dim=1).numpy(),
            "predicted_age": years.numpy(),
            "second_age": self.second(images).numpy(),
        }


def classifier_names(folder: Path) -> list[str]:
    """The classifiers that a finished notebook 05 left in its folder: ``age`` and the attributes'."""
    return list(Manifest.read(folder).details["classifiers"])


def judge_faces(
    faces: Faces,
    chosen: np.ndarray,
    judges: Judges,
    features: Features,
    batch: int = 64,
    progress: bool = True,
    parts: Parts | None = None,
) -> tuple[pd.DataFrame, Tensor, Tensor]:
    """Put real faces before the judges.

    Arguments:
        faces: prepared faces.
        chosen: which of them, [M] int64.
        judges: who judges.
        features: whose features to keep.
        batch: faces at a time.
        progress: draw a bar.
        parts: where what is judged is kept on the way.

    Returns:
        One row a face: face, identity, source (its group), target (the same), what `Judges.labels` says, attributes,
        and how it stands to the other faces of its identity (``_same``; NaN where there is none) and to those of all
        others (``_other``): mean cosine, mean cosine_centred (less the mean of these faces' embeddings) and verified,
        the share that the embedder takes for its own person; then the faces' descriptors [M,d] and features [M,f].
    """

    def judge(some: slice) -> pd.DataFrame:
        images = faces.images(chosen[some])
        vectors = {"descriptor": judges.embedder.descriptors(images), "feature": features(images)}
        return judges.labels(images).assign(**{name: list(tensor.numpy()) for name, tensor in vectors.items()})

    told = in_batches(judge, len(chosen), batch, "real faces", progress, parts)
    descriptors, kept = pop_tensor(told, "descriptor"), pop_tensor(told, "feature")
    rows = _rows(faces, chosen, faces.groups[chosen], told, judges)
    return rows.assign(**_between(descriptors, faces.identities[chosen], judges.embedder)), descriptors, kept


def judge_method(
    method: Method,
    name: str,
    faces: Faces,
    chosen: np.ndarray,
    judges: Judges,
    features: Features | None,
    descriptors: Tensor,
    batch: int = 64,
    progress: bool = True,
    parts: Parts | None = None,
    centre: Tensor | None = None,
    title: str | None = None,
) -> tuple[pd.DataFrame, Tensor | None]:
    """Translate every face into the groups that are not its own and put the results before the judges.

    Faces are judged as they would be saved, rounded to 8 bits.

    Arguments:
        method: the method; `name` is what the rows call it.
        faces: prepared faces.
        chosen: which of them, [M] int64.
        judges: who judges.
        features: whose features to keep; None: nobody's.
        descriptors: [M,d], of those real faces, from `judge_faces`.
        batch: faces at a time.
        progress: draw a bar.
        parts: where what is judged is kept on the way.
        centre: [d], the mean embedding that cosines are centred on; None: that of `descriptors`.
        title: of the bar; None: `name`.

    Returns:
        One row a face × target: method, face, identity, source, target, what `Judges.labels` says, cosine,
        cosine_centred and verified (bool) of the face before and after, attributes; and the features [rows,f].

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    own, embeddings = faces.groups[chosen], normalize(descriptors, dim=1)
    # Of one face or two the mean is the faces themselves, so nothing is left less it.
    centred_too = centre is not None or len(descriptors) > 2
    mean = embeddings.mean(dim=0) if centre is None else centre
    row, target = np.nonzero(own[:, None] != np.arange(len(AGE_GROUPS)))

    def judge(some: slice) -> pd.DataFrame:
        which, targets = row[some], target[some]
        images = to_uint8(translate(method, name, faces, chosen[which], torch.from_numpy(targets)))
        told = judges.labels(images)
        before, after = descriptors[torch.from_numpy(which)], judges.embedder.descriptors(images)
        units = embeddings[torch.from_numpy(which)], normalize(after, dim=1)
        told["cosine"] = cosine(*units).numpy()
        centred = cosine(*(normalize(unit - mean, dim=1) for unit in units)).numpy()
        told["cosine_centred"] = centred if centred_too else np.full(len(centred), np.nan)
        told["verified"] = judges.embedder.verified(before, after).numpy()
        kept = {} if features is None else {"feature": list(features(images).numpy())}
        return _rows(faces, chosen[which], targets, told, judges).assign(**kept)

    judged = in_batches(judge, len(row), batch, title or name, progress, parts)
    judged.insert(0, "method", name)
    return judged, None if features is None else pop_tensor(judged, "feature")


def attributes_of(faces: Faces, chosen: np.ndarray) -> dict[str, list]:
    """The attributes of some faces as a method takes them."""
    return {name: faces.table[name].iloc[chosen].tolist() for name in ATTRIBUTES if name in faces.table}


def translate(method: Method, name: str, faces: Faces, chosen: np.ndarray, targets: Tensor) -> Tensor:
    """Prepared faces at another age.

    Arguments:
        method: the method, `name` what an error calls it.
        faces: prepared faces.
        chosen: which of them, [B] int64.
        targets: groups [B] int64, or weights over the groups [B,groups].

    Returns:
        Float [B,3,S,S], [0,1] up to rounding, where the method computes.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    source = torch.from_numpy(faces.groups[chosen])
    images = method.translate(faces.images(chosen), targets, source=source, attributes=attributes_of(faces, chosen))
    finite = torch.isfinite(images).flatten(1).all(dim=1).cpu().numpy()
    if not finite.all():
        first = faces.table["face"].iloc[chosen[~finite][0]]
        raise FloatingPointError(
            f"method {name!r} made {int((~finite).sum())} of {len(chosen)} faces with values that are not finite "
            f"(the first from face {first}): look at its training curves, and train it again"
        )
    return images


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


def _between(descriptors: Tensor, identities: np.ndarray, embedder: Embedder) -> dict[str, np.ndarray]:
    unit = normalize(descriptors, dim=1)
    centred = normalize(unit - unit.mean(dim=0), dim=1)
    measures = {
        "cosine": lambda rows: unit[rows] @ unit.T,
        "cosine_centred": lambda rows: centred[rows] @ centred.T,
        "verified": lambda rows: embedder.verified_pairs(descriptors[rows], descriptors).float(),
    }
    codes, found = torch.from_numpy(pd.factorize(identities)[0]), {}
    for name, measure in measures.items():
        same, other = [], []
        for rows in torch.arange(len(codes)).split(64):  # not all pairs at once
            pairs, own = measure(rows).double(), codes[rows, None] == codes
            apart = torch.arange(len(codes)) != rows[:, None]  # a face is no second photo of itself
            # 0/0 where there is no such face: NaN
            same.append((pairs * (own & apart)).sum(dim=1) / (own & apart).sum(dim=1))
            other.append((pairs * ~own).sum(dim=1) / (~own).sum(dim=1))
        found |= {f"{name}_same": torch.cat(same).numpy(), f"{name}_other": torch.cat(other).numpy()}
    return found
