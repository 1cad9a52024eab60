"""What is measured, face by face (3.3): test faces translated to other ages, and the real ones, before the judges.

Every measure takes faces, judges them in batches, and returns a row a face and target. Each batch lies in a file of
its own until all are there, so that a stop costs one. Translated faces are judged as
they would be saved, rounded to 8 bits.
"""

import base64
import io
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ageflow.config import Ablations, ParameterError
from ageflow.data.faces import Faces
from ageflow.evaluation.identity import Embedder, refuse_alike
from ageflow.evaluation.judges import ATTRIBUTES, Judges
from ageflow.evaluation.scores import vectors
from ageflow.flows.glow import to_uint8
from ageflow.run import Workspace, digest
from ageflow.translation.ages import age_to_weights
from ageflow.translation.calibration import of_groups
from ageflow.translation.methods import LatentMethod, Method
from ageflow.work import resumable_map

Rows = pd.DataFrame  # one a face and target
Batches = Callable[[Callable[[slice], Rows], int], Rows]  # see `in_batches`
CYCLE_COLUMNS = ("inverse_error", "inverse_equal", "cycle_error", "cycle_equal")


class NotJudgedError(ValueError):
    """There is nothing to judge; the message says what to do."""


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
    own = Faces.open(Workspace.of(settings).require("faces"))
    faces = own if settings.external is None else Faces.find(settings.external, settings.runs_root)
    if faces is None or faces.image_size != own.image_size:
        wanted = f"a prepared run (dataset/run, or its folder) with this run's image_size = {own.image_size}"
        raise ParameterError(f"external = {settings.external!r}: expected {wanted}; 01_prepare_data.ipynb makes one")
    do = f"pass another external, or prepare it with groups = {list(own.age_groups.bounds)}"
    own.age_groups.require(faces.age_groups, f"external = {settings.external!r}", do)
    tested = faces.select(split="test")
    unseen = tested.unseen_by(own)
    if not len(unseen):
        found = f"{len(tested)} test faces, none of them of people new to this run"
        raise NotJudgedError(f"{faces.folder} has {found}: prepare it with more people, or pass another external")
    if len(unseen) < len(tested):  # by their names, which folders of one's own share though they may mean others
        left_out = f"{len(tested) - len(unseen):,} of {len(tested):,} test faces of external = {settings.external!r}"
        warnings.warn(f"left out are {left_out}, of people that this run was trained on, by their names", stacklevel=2)
    return spread_evenly(unseen, settings.evaluation_faces, settings.seed)


def spread_evenly(faces: Faces, wanted: int | None, seed: int) -> Faces:
    """All of the faces, or `wanted` by seed, the age groups taking turns; in the faces' order."""
    if wanted is None or wanted >= len(faces):
        return faces
    shuffled = np.random.default_rng(seed).permutation(len(faces))
    # Take turns between the groups: the k-th face of each before the (k+1)-th of any.
    turn = pd.Series(shuffled).groupby(faces.groups[shuffled]).cumcount().to_numpy()
    chosen = np.sort(shuffled[np.argsort(turn, kind="stable")[:wanted]])
    return Faces(faces.folder, faces.table.iloc[chosen])


# -- one batch of them -----------------------------------------------------------------------------------------------


def in_batches(
    folder: Path, made_from: Mapping[str, str], size: int, title: str = "", progress: bool = True
) -> Batches:
    """Judges faces a batch at a time, and continues after the batches that were kept: the same rows, stopped or not.

    Arguments:
        folder: keeps the batches; whoever has the whole may delete it.
        made_from: fingerprints of everything that the rows depend on; batches made from anything else are made again.
        size: faces in a batch. In batches of another size the last bits differ, so they are made again, too.
        title: of the progress bar, which `progress` draws.

    Returns:
        Called with `judge`, which makes the rows of some faces, one a face, from nothing but these faces; and how many
        faces there are. It returns all rows.
    """

    def rows(judge: Callable[[slice], Rows], total: int) -> Rows:
        def keep(start: int) -> dict[str, str]:
            found = judge(slice(start, min(start + size, total)))
            return {"parquet": base64.b64encode(found.to_parquet(index=False)).decode()}

        starts = range(0, total, size)
        keys, sizes = [digest([made_from, total, size])] * len(starts), [min(size, total - start) for start in starts]
        kept = resumable_map(keep, starts, folder, keys, sizes=sizes, title=title, unit="face", show=progress)
        files = (io.BytesIO(base64.b64decode(batch["parquet"])) for batch in kept)
        return pd.concat(map(pd.read_parquet, files), ignore_index=True)

    return rows


def other_groups(faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """Every face with each age group that is not its own: rows and targets, both int64 [(groups − 1)·N]."""
    return np.nonzero(faces.groups[:, None] != np.arange(len(faces.age_groups)))


def pairs_of(method: Method, faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """Those of `other_groups` that a method can do.

    Raises:
        NotJudgedError: it can do none.
    """
    rows, targets = other_groups(faces)
    can = method.can(faces, rows, targets)
    if not can.any():
        raise NotJudgedError(f"method {method.name!r} can do none of {len(rows)} translations: leave it out")
    return rows[can], targets[can]


@torch.inference_mode()
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
        ValueError: what it made are no such faces.
    """
    do = "train it on these faces, with restart=True"
    faces.age_groups.require(method.age_groups, f"the method {method.name}", do)
    # What a method does to what it is given must not reach the rows' own targets.
    made = method.translate_faces(faces, rows, targets.clone(), _known(faces, rows))
    return checked(method, made, faces.image_size, faces.table["face"].iloc[rows])


def checked(method: Method, made: Any, side: int, names: Sequence, doing: str = "translating") -> Tensor:
    """What a method made of faces, once it is known to be faces.

    Arguments:
        method: the method; anybody's.
        made: what it returned.
        side: of the faces, pixels.
        names: of the faces that it was to make, [B].
        doing: what it was asked for.

    Returns:
        The same: float [B,3,S,S], [0,1] up to rounding.

    Raises:
        FloatingPointError, ValueError: as `translate`.
    """
    shape, right = (len(names), 3, side, side), isinstance(made, Tensor) and made.is_floating_point()
    found = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
    # A flow's values may lie outside, and are clamped.
    if right and not isinstance(method, LatentMethod) and ((made < -0.1) | (made > 1.1)).float().mean() > 0.2:
        right, found = False, f"{found}, {made.min():g} to {made.max():g}"
    if not right or made.shape != shape:
        raise ValueError(f"method {method.name!r}, {doing}, made {found}: expected a float tensor {shape} in [0, 1]")
    finite = torch.isfinite(made).flatten(1).all(dim=1).tolist()
    if not all(finite):
        what = f"{finite.count(False)} of {len(names)} faces not finite, first {[*names][finite.index(False)]}"
        raise FloatingPointError(f"method {method.name!r}, {doing}, made {what}: train it again")
    return made


def _known(faces: Faces, rows: np.ndarray) -> dict[str, Any]:
    """What a method may ask about faces: their own groups, and their attributes."""
    attributes = {name: faces.table[name].iloc[rows].tolist() for name in ATTRIBUTES if name in faces.table}
    return {"source": torch.from_numpy(faces.groups[rows]), "attributes": attributes}


def _about(method: str, faces: Faces, rows: np.ndarray, **columns: np.ndarray) -> Rows:
    """Which face each row is about: method, face, identity, source, and columns of the rows' own."""
    about = faces.table[["face", "identity"]].iloc[rows].reset_index(drop=True)
    about.insert(0, "method", method)
    return about.assign(source=faces.groups[rows], **columns)


# -- the measures ----------------------------------------------------------------------------------------------------


def judge_faces(faces: Faces, judges: Judges, batches: Batches) -> Rows:
    """Put real faces before the judges.

    Returns:
        One row a face: method ("real"), face, identity, source (its group), target (the same), what `Judges.labels` says,
        and how it compares with the other faces of its identity (``_same``; NaN where there is none) and with those of
        all others (``_other``): mean cosine, mean cosine_centred (less the mean of these faces' embeddings) and verified,
        the share that the embedder takes for its own person.

    Raises:
        EmbedderError: the embedder does not tell people apart.
    """
    found = batches(lambda some: judges.labels(faces.images(some), faces.table.iloc[some]), len(faces))
    descriptors = vectors(found["descriptor"])
    one_each = ~pd.Series(faces.identities).duplicated().to_numpy()
    refuse_alike(judges.embedder, normalize(descriptors[one_each], dim=1))
    between = _between(descriptors, faces.identities, judges.embedder)
    return _about("real", faces, np.arange(len(faces)), target=faces.groups).join(found).join(between)


def judge_method(method: Method, faces: Faces, judges: Judges, real: Rows, batches: Batches) -> Rows:
    """Translate every face into the groups that are not its own and put the results before the judges.

    Arguments:
        method: the method.
        faces: prepared faces.
        judges: the judges.
        real: rows of `judge_faces`, of these faces and maybe more. Cosines are centred on their mean embedding; of one
            face or two nothing is left less that, and centred cosines are NaN.
        batches: how many at a time, and where they are kept.

    Returns:
        One row a face × target that the method can do: method, face, identity, source, target, what `Judges.labels` says
        but the descriptor, and cosine, cosine_centred and verified (bool) of the face before and after.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    rows, targets = pairs_of(method, faces)
    centre = normalize(vectors(real["descriptor"]), dim=1).mean(dim=0) if len(real) > 2 else torch.nan
    descriptors = vectors(real.set_index("face").loc[faces.table["face"], "descriptor"])

    def judge(some: slice) -> Rows:
        images = to_uint8(translate(method, faces, rows[some], torch.from_numpy(targets[some])))
        found = judges.labels(images, faces.table.iloc[rows[some]])
        before, after = descriptors[torch.from_numpy(rows[some])], vectors(found.pop("descriptor"))
        units = normalize(before, dim=1), normalize(after, dim=1)
        return found.assign(
            cosine=torch.cosine_similarity(*units).numpy(),
            cosine_centred=torch.cosine_similarity(*(unit - centre for unit in units)).numpy(),
            verified=judges.embedder.verified_pairs(before, after).diagonal().numpy(),
        )

    return _about(method.name, faces, rows, target=targets).join(batches(judge, len(rows)))


@torch.inference_mode()
def cycle_errors(method: Method, faces: Faces, batches: Batches) -> Rows:
    """Cycle error: faces into the groups that are not their own, and back. What comes back is the face, as far as nothing was lost.

    There are two ways back. By the *inverse*: the latent is moved, and moved back by the move's exact inverse (ICTM run
    backwards, the prototype step subtracted); AgeFlow without ICTM has none. By *re-translation*, as with any other
    method: the translated face, as it would be saved with 8 bits, is translated once more, to the age that it
    had: its group, or where the method reads ages from the face, what it read.

    Returns:
        One row a face × target: method, face, identity, source, target; inverse_error and cycle_error, the mean
        absolute difference from the face, of pixel values in [0,1]; inverse_equal and cycle_equal, the share (%) of
        its 8-bit values that come back the same. Those of the inverse are NaN where the method has none.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    rows, targets = pairs_of(method, faces)
    if method.pairs is not None:  # of these, the ways that have a way back
        back = [pair in method.pairs for pair in zip(targets.tolist(), faces.groups[rows].tolist(), strict=True)]
        rows, targets = rows[back], targets[back]

    def measure(some: slice) -> Rows:
        own, images, target = rows[some], faces.images(rows[some]), torch.tensor(targets[some])
        known = _known(faces, own)
        known["source"] = method.own_ages(images, known["source"])
        there = to_uint8(translate(method, faces, own, target))
        own_age = known["source"] if method.reader is None else of_groups(known["source"], len(faces.age_groups))
        back = {"cycle": method.translate(there, own_age, target, known["attributes"])}
        if method.invertible:
            z = method.round_trip(method.glow.encode(images.to(method.device)), target, *known.values())
            back["inverse"] = method.glow.decode(z)
        compared = dict.fromkeys(CYCLE_COLUMNS, np.full(len(own), np.nan))
        for way, returned in back.items():
            checked(method, returned, faces.image_size, faces.table["face"].iloc[own], f"coming back by the {way}")
            error = (returned.cpu() - images.float() / 255).abs().flatten(1).mean(dim=1).double()
            equal = (to_uint8(returned.cpu()) == images).flatten(1).double().mean(dim=1)
            compared |= {f"{way}_error": error.numpy(), f"{way}_equal": 100 * equal.numpy()}
        return pd.DataFrame(compared)

    return _about(method.name, faces, rows, target=targets).join(batches(measure, len(rows)))


def predicted_ages(method: Method, faces: Faces, judges: Judges, batches: Batches) -> Rows:
    """Translate every face to every age of `AgeGroups.stops` and ask the age judges.

    The paper shows ages between its groups (Fig. 1) and measures none; each is a weighting of the age groups here.

    Returns:
        One row a face × age: method, face, identity, source (its group), target_age, predicted_age (the age
        classifier's expectation) and second_age (the second judge's), years.

    Raises:
        FloatingPointError: the method made a face that is not finite.
    """
    asked = np.array(faces.age_groups.stops)
    weights = torch.stack([age_to_weights(age, faces.age_groups) for age in asked])
    rows, stops = (index.ravel() for index in np.indices((len(faces), len(asked))))

    def measure(some: slice) -> Rows:
        images = to_uint8(translate(method, faces, rows[some], weights[stops[some]]))
        return judges.ages(images)[["predicted_age", "second_age"]].astype(float)

    return _about(method.name, faces, rows, target_age=asked[stops]).join(batches(measure, len(rows)))


def _between(descriptors: Tensor, identities: np.ndarray, embedder: Embedder) -> Rows:
    """Each face with all the others of its person (``_same``), and with all of other people (``_other``): means."""
    unit = normalize(descriptors, dim=1)
    centred = normalize(unit - unit.mean(dim=0), dim=1)
    codes, found = torch.from_numpy(pd.factorize(identities)[0]), []
    for rows in torch.arange(len(codes)).split(64):  # not all pairs at once
        own = codes[rows, None] == codes
        kinds = {"same": own & (torch.arange(len(codes)) != rows[:, None]), "other": ~own}  # a face is no second photo
        pairs = {"cosine": unit[rows] @ unit.T, "cosine_centred": centred[rows] @ centred.T}
        pairs["verified"] = embedder.verified_pairs(descriptors[rows], descriptors)
        means = {}  # 0/0 where there is no such face: NaN
        for (name, pair), (kind, of_kind) in itertools.product(pairs.items(), kinds.items()):
            means[f"{name}_{kind}"] = ((pair.double() * of_kind).sum(dim=1) / of_kind.sum(dim=1)).numpy()
        found.append(pd.DataFrame(means))
    return pd.concat(found, ignore_index=True)
