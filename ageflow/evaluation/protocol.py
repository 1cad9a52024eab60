"""What is measured, face by face (3.3): test faces translated to other ages, and the real ones, before the judges.

Every measure takes faces, judges them in `Batches`, and returns a row a face and target. Translated faces are judged as
they would be saved, rounded to 8 bits.
"""

import warnings
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ageflow.config import Ablations, ParameterError
from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.evaluation.identity import Embedder
from ageflow.evaluation.judged import Batches, NotJudgedError
from ageflow.evaluation.judges import ATTRIBUTES, Judges
from ageflow.flows.glow import to_uint8
from ageflow.run import Workspace
from ageflow.translation.ages import GROUP_CENTRES, OLDEST, YOUNGEST, age_to_weights
from ageflow.translation.methods import LatentMethod

STOPS = tuple(float(age) for age in np.linspace(YOUNGEST, OLDEST, 11))  # target ages, years
CYCLE_COLUMNS = ("inverse_error", "inverse_equal", "cycle_error", "cycle_equal")


class Method(Protocol):
    """What is judged: a method of `ageflow.translation.methods`, or any other with a name and this call."""

    name: str

    def translate(
        self, images: Tensor, target: Tensor, source: Tensor | None = None, attributes: Any = None
    ) -> Tensor: ...


# -- which faces -----------------------------------------------------------------------------------------------------


def held_out_faces(settings: Ablations) -> Faces:
    """The faces to judge on.

    Returns:
        The test faces of the run, or those of the run that ``external`` names, less the people that the run was trained
        on: all, or a seeded choice of ``evaluation_faces`` of them that is spread evenly over the age groups.

    Raises:
        NotJudgedError: there are no such faces.
        ParameterError: ``external`` names no prepared run, or one of another size.
    """
    own, external = Faces.open(Workspace.of(settings).require("faces")), f"external = {settings.external!r}"
    faces = own if settings.external is None else Faces.find(settings.external, settings.runs_root)
    if faces is None:
        at = f"no prepared run in {settings.runs_root} (dataset/run), nor the folder of one"
        raise ParameterError(f"{external} is {at}: 01_prepare_data.ipynb makes one")
    if faces.image_size != own.image_size:
        sizes = f"faces of {faces.image_size} pixels, and this run's have {own.image_size}"
        raise ParameterError(f"{external} has {sizes}: prepare it with image_size = {own.image_size}")
    faces = faces.select(split="test")
    if not len(faces):
        why = "it has one identity, or its own partition has no test half"
        raise NotJudgedError(f"{faces.folder} has no test faces: {why}. Prepare it with more people, or pass external")
    if settings.external is not None:
        faces = _of_people_unseen(faces, own, external)
    return take(faces, spread_evenly(faces.groups, settings.evaluation_faces, settings.seed))


def _of_people_unseen(faces: Faces, own: Faces, external: str) -> Faces:
    """Those `faces` whose people are not in the training half of `own`, with a warning of how many are left out."""
    unseen = faces.unseen_by(own)
    # Numbers that two folders of one's own give to people may mean others in each.
    by_name = " (by their names: where those mean others in this folder, prepare it with other names)"
    known = f"of people that this run was trained on{by_name if (faces.table['source'] == 'folder').any() else ''}"
    if not len(unseen):
        raise NotJudgedError(f"{external}: its {len(faces)} test faces are all {known}: name another set")
    if len(unseen) < len(faces):
        left_out = f"{len(faces) - len(unseen):,} of its {len(faces):,} test faces"
        warnings.warn(f"{external}: {left_out} are {known}, and are left out", stacklevel=3)
    return unseen


def spread_evenly(groups: np.ndarray, wanted: int | None, seed: int) -> np.ndarray:
    """Which of some faces, of those groups [N], to take: all, or `wanted` by seed, the groups taking turns; sorted."""
    if wanted is None or wanted >= len(groups):
        return np.arange(len(groups))
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    # Take turns between the groups: the k-th face of each before the (k+1)-th of any.
    turn = pd.Series(shuffled).groupby(groups[shuffled]).cumcount().to_numpy()
    return np.sort(shuffled[np.argsort(turn, kind="stable")[:wanted]])


def take(faces: Faces, rows: np.ndarray) -> Faces:
    """Some of the faces, in this order."""
    return Faces(faces.folder, faces.table.iloc[rows])


# -- one batch of them -----------------------------------------------------------------------------------------------


def other_groups(faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """Every face with each age group that is not its own: rows and targets, both int64 [3·N]."""
    return np.nonzero(faces.groups[:, None] != np.arange(len(AGE_GROUPS)))


def translate(method: Method, faces: Faces, rows: np.ndarray, targets: Tensor) -> Tensor:
    """Prepared faces at another age.

    Arguments:
        method: the method.
        faces: prepared faces.
        rows: which of them, [B] int64.
        targets: groups [B] int64, or weights over the groups [B,groups].

    Returns:
        Float [B,3,S,S], [0,1] up to rounding, where the method computes.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    images = method.translate(faces.images(rows), targets, **_known(faces, rows))
    _refuse_non_finite(images, method, "translating", faces, rows)
    return images


def _known(faces: Faces, rows: np.ndarray) -> dict[str, Any]:
    """What a method may ask about faces: their own groups, and their attributes."""
    attributes = {name: faces.table[name].iloc[rows].tolist() for name in ATTRIBUTES if name in faces.table}
    return {"source": torch.from_numpy(faces.groups[rows]), "attributes": attributes}


def _refuse_non_finite(images: Tensor, method: Method, doing: str, faces: Faces, rows: np.ndarray) -> None:
    broken = ~torch.isfinite(images).flatten(1).all(dim=1).cpu().numpy()
    if broken.any():
        first = faces.table["face"].iloc[rows[broken][0]]
        raise FloatingPointError(
            f"method {method.name!r}, {doing}, made {broken.sum()} of {len(rows)} faces with values that are not finite "
            f"(the first from face {first}): look at its training curves, and train it again"
        )


def _named(faces: Faces, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The columns that say which face a row is about."""
    columns = {name: faces.table[name].to_numpy()[rows] for name in ("face", "identity")}
    return columns | {"source": faces.groups[rows]}


def _labelled(faces: Faces, rows: np.ndarray, targets: np.ndarray, images: Tensor, judges: Judges) -> pd.DataFrame:
    """Which face, its target, its attributes, and what the judges say of `images`."""
    named = pd.DataFrame(_named(faces, rows) | {"target": targets})
    found = judges.labels(images)
    for name, classifier in judges.attributes.items():
        named[name] = faces.table[name].to_numpy(dtype=object)[rows]
        # A race too rare to train on is no label of the classifier's: it is not asked about such a face.
        found[f"{name}_predicted"] = found[f"{name}_predicted"].where(named[name].isin(classifier.labels), None)
    return pd.concat([named, found], axis=1)


# -- the measures ----------------------------------------------------------------------------------------------------


def judge_faces(faces: Faces, judges: Judges, batches: Batches) -> pd.DataFrame:
    """Put real faces before the judges.

    Returns:
        One row a face: face, identity, source (its group), target (the same), what `Judges.labels` says, attributes,
        its descriptor [d], and how it compares with the other faces of its identity (``_same``; NaN where there is
        none) and with those of all others (``_other``): mean cosine, mean cosine_centred (less the mean of these faces'
        embeddings) and verified, the share that the embedder takes for its own person.
    """

    def judge(some: slice) -> pd.DataFrame:
        rows, images = np.arange(len(faces))[some], faces.images(some)
        descriptors = list(judges.embedder.descriptors(images).numpy())
        return _labelled(faces, rows, faces.groups[some], images, judges).assign(descriptor=descriptors)

    rows = batches.rows(judge, len(faces))
    return rows.join(_between(vectors(rows["descriptor"]), faces.identities, judges.embedder))


def judge_method(method: Method, faces: Faces, judges: Judges, real: pd.DataFrame, batches: Batches) -> pd.DataFrame:
    """Translate every face into the groups that are not its own and put the results before the judges.

    Arguments:
        method: the method.
        faces: prepared faces.
        judges: the judges.
        real: rows of `judge_faces`, of these faces and maybe more. Cosines are centred on their mean embedding; of one
            face or two nothing is left less that, and centred cosines are NaN.
        batches: how many at a time, and where they are kept.

    Returns:
        One row a face × target: method, face, identity, source, target, what `Judges.labels` says, attributes, and
        cosine, cosine_centred and verified (bool) of the face before and after.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    rows, targets = other_groups(faces)
    centre = normalize(vectors(real["descriptor"]), dim=1).mean(dim=0) if len(real) > 2 else torch.nan
    descriptors = vectors(real.set_index("face").loc[faces.table["face"], "descriptor"])

    def judge(some: slice) -> pd.DataFrame:
        images = to_uint8(translate(method, faces, rows[some], torch.from_numpy(targets[some])))
        before, after = descriptors[torch.from_numpy(rows[some])], judges.embedder.descriptors(images)
        units = normalize(before, dim=1), normalize(after, dim=1)
        found = _labelled(faces, rows[some], targets[some], images, judges)
        found["cosine"] = torch.cosine_similarity(*units).numpy()
        found["cosine_centred"] = torch.cosine_similarity(*(unit - centre for unit in units)).numpy()
        found["verified"] = judges.embedder.verified_pairs(before, after).diagonal().numpy()
        found.insert(0, "method", method.name)
        return found

    return batches.rows(judge, len(rows))


@torch.inference_mode()
def cycle_errors(method: LatentMethod, faces: Faces, batches: Batches) -> pd.DataFrame:
    """Cycle error: faces into the groups that are not their own, and back. What comes back is the face, as far as nothing was lost.

    There are two ways back. By the *inverse*: the latent is moved, and moved back by the move's exact inverse (ICTM run
    backwards, the prototype step subtracted); AgeFlow without ICTM has none. By *re-translation*, as with any other
    method: the translated face, as it would be saved with 8 bits, is translated once more, to the group it came from.

    Returns:
        One row a face × target: method, face, identity, source, target; inverse_error and cycle_error, the mean
        absolute difference from the face, of pixel values in [0,1]; inverse_equal and cycle_equal, the share (%) of
        its 8-bit values that come back the same. Those of the inverse are NaN where the method has none.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    rows, targets = other_groups(faces)

    def measure(some: slice) -> pd.DataFrame:
        own, images, target = rows[some], faces.images(rows[some]), torch.from_numpy(targets[some])
        known = _known(faces, own)
        there = to_uint8(translate(method, faces, own, target))
        back = {"cycle": method.translate(there, known["source"], target, known["attributes"])}
        if method.invertible:
            on_device = (tensor.to(method.device) for tensor in (target, known["source"]))
            z = method.round_trip(method.glow.encode(images.to(method.device)), *on_device, known["attributes"])
            back["inverse"] = method.glow.decode(z)
        compared = dict.fromkeys(CYCLE_COLUMNS, np.nan)
        for way, returned in back.items():
            _refuse_non_finite(returned, method, f"coming back by the {way}", faces, own)
            error = (returned.cpu() - images.float() / 255).abs().flatten(1).mean(dim=1).double()
            equal = (to_uint8(returned.cpu()) == images).flatten(1).double().mean(dim=1)
            compared |= {f"{way}_error": error.numpy(), f"{way}_equal": 100 * equal.numpy()}
        return pd.DataFrame({"method": method.name} | _named(faces, own) | {"target": targets[some]} | compared)

    return batches.rows(measure, len(rows))


def predicted_ages(method: Method, faces: Faces, judges: Judges, batches: Batches) -> pd.DataFrame:
    """Translate every face to every age of `STOPS` and ask the age judges.

    The paper shows ages between its groups (Fig. 1) and measures none; each is a weighting of the age groups here.

    Returns:
        One row a face × age: method, face, identity, source (its group), target_age, predicted_age (the age
        classifier's expectation) and second_age (the second judge's), years.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    # Beyond the outer groups' centres several stops are the same weights: translated and judged once.
    asked, which = np.unique(np.clip(STOPS, GROUP_CENTRES[0], GROUP_CENTRES[-1]), return_inverse=True)
    weights = torch.stack([age_to_weights(age) for age in asked])
    rows, steps = (index.ravel() for index in np.indices((len(faces), len(asked))))

    def measure(some: slice) -> pd.DataFrame:
        images = to_uint8(translate(method, faces, rows[some], weights[steps[some]]))
        ages = judges.ages(images)[["predicted_age", "second_age"]].astype(float)
        return pd.concat([pd.DataFrame({"method": method.name} | _named(faces, rows[some])), ages], axis=1)

    found = batches.rows(measure, len(rows))
    found = found.iloc[(len(asked) * np.arange(len(faces))[:, None] + which).ravel()].reset_index(drop=True)
    found.insert(4, "target_age", np.tile(STOPS, len(faces)))
    return found


def vectors(column: pd.Series) -> Tensor:
    """A column of vectors as a tensor [rows, d]."""
    return torch.from_numpy(np.stack(column.to_list()))


def _between(descriptors: Tensor, identities: np.ndarray, embedder: Embedder) -> pd.DataFrame:
    """Each face with all the others of its person (``_same``), and with all of other people (``_other``): means."""
    unit = normalize(descriptors, dim=1)
    centred = normalize(unit - unit.mean(dim=0), dim=1)
    codes, found = torch.from_numpy(pd.factorize(identities)[0]), []
    for rows in torch.arange(len(codes)).split(64):  # not all pairs at once
        own = codes[rows, None] == codes
        kinds = {"same": own & (torch.arange(len(codes)) != rows[:, None]), "other": ~own}  # a face is no second photo
        pairs = {
            "cosine": unit[rows] @ unit.T,
            "cosine_centred": centred[rows] @ centred.T,
            "verified": embedder.verified_pairs(descriptors[rows], descriptors),
        }
        means = {  # 0/0 where there is no such face: NaN
            f"{name}_{kind}": (pair.double() * of_kind).sum(dim=1) / of_kind.sum(dim=1)
            for name, pair in pairs.items()
            for kind, of_kind in kinds.items()
        }
        found.append(pd.DataFrame({name: mean.numpy() for name, mean in means.items()}))
    return pd.concat(found, ignore_index=True)
