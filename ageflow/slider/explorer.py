"""Faces of a run, or of a picture, at any age by any method that the run has trained; no widgets."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ageflow.checkpoint import fingerprint
from ageflow.config import ParameterError, Slider
from ageflow.data.align import SMALLEST_FACE, Aligned, Aligner
from ageflow.data.faces import Faces
from ageflow.data.paste import paste_change
from ageflow.data.records import PAPER_GROUPS, AgeGroups
from ageflow.device import device_of
from ageflow.evaluation.identity import Embedder, load_embedder, refuse_alike
from ageflow.evaluation.methods import load_method
from ageflow.evaluation.protocol import checked
from ageflow.flows.glow import load_glow, to_uint8
from ageflow.run import Manifest, Workspace
from ageflow.translation.ages import age_to_weights
from ageflow.translation.calibration import expected_age
from ageflow.translation.classifier import Classifier, load_classifier
from ageflow.translation.methods import METHODS, PARTS, LatentMethod, Method

AGE_STEP = 0.5  # of the slider, years
_ATTRIBUTES = ("gender", "race")  # columns of the faces' table
_SMALLEST = 32  # pixels of a picture's shorter side


@dataclass(frozen=True, eq=False)  # compared by identity: a latent is kept for each
class Portrait:
    """A face to be shown at other ages.

    Arguments:
        image: aligned, uint8 [3, S, S].
        age: its own age, years: the data set's, or for a picture the classifier's estimate.
        attributes: its attributes by name.
        about: a caption.
        similarity: where it lies in the picture it is of (`Aligned`); None: a test face.
        age_groups: the run's.
    """

    image: Tensor
    age: float
    attributes: dict[str, str | None]
    about: str
    similarity: tuple[complex, complex] | None = None
    age_groups: AgeGroups = PAPER_GROUPS

    @property
    def own_age(self) -> float:
        """Its own age as a value of the slider, years."""
        stops = self.age_groups.stops
        return float(np.clip(round(self.age / AGE_STEP) * AGE_STEP, stops[0], stops[-1]))

    def known(self, count: int) -> dict[str, list[str | None]]:
        """Its attributes for a batch of `count` times this face."""
        return {name: [value] * count for name, value in self.attributes.items()}


@dataclass(frozen=True)
class View:
    """Everything a picture depends on.

    Arguments:
        portrait: the face.
        age: years; between two groups, their weights are mixed (`age_to_weights`).
        method: a name that `load_method` takes.
        strength: how much of the way it is moved (`LatentMethod.at`).
    """

    portrait: Portrait
    age: float
    method: str = "ageflow"
    strength: float = 1.0


class Explorer:
    """Faces of a run at any age, by any method that the run has trained.

    Arguments:
        settings: of notebook 09.

    Raises:
        MissingArtefactError: the run has no faces or no GLOW; the message names the notebook to run.
        ParameterError: the run's faces have no ages, or the age shown first is out of their groups' range.

    Example:
        ``explorer.at_age(View(explorer.portrait(3), 62.0))`` → uint8 [3, S, S]
    """

    def __init__(self, settings: Slider) -> None:
        self.settings = settings
        self.workspace, self._name = Workspace.of(settings), f"{settings.dataset}/{settings.run}"
        faces = Faces.open(self.workspace.require("faces"))
        if not faces.ages_known:
            raise ParameterError(f"{self._name}: its data set has no ages; choose a run on faces with ages")
        self.faces, self.age_groups = faces.select(split="test") or faces, faces.age_groups
        self.check_ages([] if settings.age is None else [settings.age])
        self.glow = load_glow(self.workspace.require("glow"), settings.device)
        self.method = lru_cache(self._load_method)
        # A face is encoded once, however far the slider is dragged; two faces are kept.
        self._latent = lru_cache(maxsize=2)(self._encode)

    def __len__(self) -> int:
        """How many test faces there are."""
        return len(self.faces)

    def check_ages(self, ages: Sequence[float]) -> None:
        """Refuse target ages, years, that the run's age groups do not reach.

        Raises:
            ParameterError: an age is out of their range.
        """
        youngest, *_, oldest = self.age_groups.stops
        if wrong := [age for age in ages if not youngest <= age <= oldest]:
            raise ParameterError(f"age = {wrong[0]:g}: expected {youngest:g} to {oldest:g} years in {self._name}")

    def portrait(self, index: int) -> Portrait:
        """A test face, `index` from 0.

        Raises:
            ParameterError: there are not so many.
        """
        if index >= len(self):
            raise ParameterError(f"face = {index}: {self._name} has {len(self)} test faces, 0 to {len(self) - 1}")
        row = self.faces.table.iloc[index]
        attributes = {name: None if pd.isna(row[name]) else row[name] for name in _ATTRIBUTES}
        known = [attributes[name] for name in self.faces.attributes if attributes[name]]
        about = ", ".join([f"test face {index}", f"{round(row['age'], 1):g} years", *known])
        image = self.faces.images([index])[0].contiguous()
        return Portrait(image, float(row["age"]), attributes, about, age_groups=self.age_groups)

    def portraits_in(self, picture: Image.Image) -> list[Portrait]:
        """The faces of a picture, left to right, aligned as the run's are; age and attributes are estimated.

        Arguments:
            picture: as `open_image` opens it.

        Returns:
            One face or more.

        Raises:
            ValueError: no face in it; the message gives the reason.
            MissingArtefactError: the run has no classifiers (notebook 05).
        """
        seen = self._aligner.align_all(picture) if min(picture.size) >= _SMALLEST else []
        aligned = [face for face in seen if isinstance(face, Aligned)]
        if not aligned:
            size, least = f"{picture.width}×{picture.height}", f"1/{SMALLEST_FACE} of the picture's longer side"
            none = f"no face was found in {size} pixels: it must look ahead and be at least {least} high"
            raise ValueError("; ".join(map(str, seen)) or none)
        portraits = []
        for face in aligned:
            image = torch.from_numpy(face.image).permute(2, 0, 1).contiguous()
            age, attributes = self.estimate(image)
            about = ", ".join(["your picture, estimated", f"{age:.0f} years", *attributes.values()])
            attributes = dict.fromkeys(_ATTRIBUTES) | attributes
            portraits.append(Portrait(image, age, attributes, about, face.similarity, self.age_groups))
        return portraits

    def at_age(self, view: View) -> Tensor:
        """The face at an age, uint8 [3, S, S].

        Raises:
            MissingArtefactError, CheckpointError: the method's parts; the message names the notebook to run.
        """
        return self.at_ages(view, [view.age])[0]

    @torch.inference_mode()
    def at_ages(self, view: View, ages: Sequence[float]) -> Tensor:
        """The same at several ages in place of the view's, made together: uint8 [ages, 3, S, S].

        A method that has the groups alone makes each age's group.

        Raises:
            ParameterError: the method has no such strength, or does not go from the face's group to that.
            FloatingPointError, ValueError: what it made are no faces; as `checked`.
        """
        method, portrait, count = self.method(view.method).at(view.strength), view.portrait, len(ages)
        if isinstance(method, LatentMethod):
            made = self.glow.decode(method.move(*self._to_move(method, portrait, ages)))
        else:
            source, groups = int(self.age_groups.of(portrait.own_age)), self.age_groups.of(ages)
            if other := [target for target in groups.tolist() if method.pairs and (source, target) not in method.pairs]:
                labels = self.age_groups.labels
                raise ParameterError(f"{method.title} does not go from {labels[source]} to {labels[other[0]]}")
            target = self._weights(ages) if method.continuous else torch.tensor(groups)
            images, sources = portrait.image.repeat(count, 1, 1, 1), torch.full((count,), source)  # its own, to change
            made = method.translate(images, target, sources, portrait.known(count))
        return to_uint8(checked(method, made, self.faces.image_size, [f"at {age:g}" for age in ages])).cpu()

    def prepare(self) -> dict[str, str]:
        """Load all that the settings' method and the judges need; returns fingerprints of it.

        Raises:
            MissingArtefactError, CheckpointError, EmbedderError: what is missing or does not fit, and what to do.
        """
        judges = {name: fingerprint(self.workspace.path("classifiers", name)) for name in self._classifiers}
        method = self.method(self.settings.method).at(self.settings.strength)
        if not method.live:
            raise ParameterError(f"method = {method.name!r} has pictures of test faces alone: name another method")
        return dict(method.weights) | judges | {"embedder": self.embedder.fingerprint}

    @staticmethod
    def paste(picture: Image.Image, portrait: Portrait, shown: Tensor) -> None:
        """Put a face of an opened picture back into it, changed to `shown`, uint8 [3, S, S]: in place, by its change."""
        if picture.info.get("icc_profile", b"")[16:20] != b"RGB ":  # of the file's CMYK or grey, which it no longer is
            picture.info.pop("icc_profile", None)
        before, after = (face.permute(1, 2, 0).numpy() for face in (portrait.image, shown))
        paste_change(picture, portrait.similarity, before, after)

    @torch.inference_mode()
    def back(self, view: View) -> Tensor | None:
        """The face moved to the age and back by the exact inverse, float [3, S, S]; None: the method has none."""
        method = self.method(view.method).at(view.strength)
        if not method.invertible:
            return None
        return self.glow.decode(method.round_trip(*self._to_move(method, view.portrait, [view.age])))[0].cpu()

    @torch.inference_mode()
    def cosines(self, portrait: Portrait, shown: Tensor) -> list[float]:
        """Similarity of each of `shown`, uint8 [B, 3, S, S], to the portrait by `embedder`, in [−1, 1].

        Raises:
            EmbedderError: the embedder of the settings cannot be loaded, or does not tell people apart.
        """
        before, *after = self.embedder(torch.cat([portrait.image[None], shown]))
        return [float(before @ one) for one in after]

    @torch.inference_mode()
    def estimate(self, image: Tensor) -> tuple[float, dict[str, str]]:
        """The age (the groups' centres, weighted by their probabilities) and the attributes of a face uint8 [3, S, S].

        Raises:
            MissingArtefactError: the run has no classifiers (notebook 05).
        """
        device = next(self.glow.parameters()).device
        answers = {name: network(image[None].to(device))[0].cpu() for name, network in self._classifiers.items()}
        age = float(expected_age(answers.pop("age").softmax(dim=0), self._classifiers["age"].age_groups))
        return age, {name: self._classifiers[name].labels[int(logits.argmax())] for name, logits in answers.items()}

    @cached_property
    def embedder(self) -> Embedder:
        """The embedder of the settings."""
        embedder = load_embedder(self.settings.embedder, self.settings.device)
        people = np.flatnonzero(~self.faces.table["identity"].duplicated())[:8]
        refuse_alike(embedder, embedder(self.faces.images(people)))
        return embedder

    def _to_move(self, method: LatentMethod, portrait: Portrait, ages: Sequence[float]) -> tuple:
        """What `method.move` takes to bring the face to each age."""
        z, count = self._latent(portrait), len(ages)
        # The face's own age is mixed as the target is, so that nothing moves where the two are equal.
        source = method.own_ages(portrait.image[None], self._weights([portrait.own_age]).to(z.device))
        target = self._weights(ages).to(z.device)
        return z.expand(count, -1), target, source.expand(count, -1), portrait.known(count)

    def _weights(self, ages: Sequence[float]) -> Tensor:
        return torch.stack([age_to_weights(age, self.age_groups) for age in ages])

    def _load_method(self, name: str) -> Method:
        chosen = self.settings
        method = load_method(name, chosen.dataset, chosen.run, chosen.runs_root, chosen.device)
        do = "train it on these faces, with restart=True"
        self.age_groups.require(method.age_groups, f"the method {name}", do)
        if isinstance(method, LatentMethod):
            method.glow = self.glow  # one for all
        return method

    def _encode(self, portrait: Portrait) -> Tensor:
        return self.glow.encode(portrait.image[None].to(next(self.glow.parameters()).device))

    @cached_property
    def _aligner(self) -> Aligner:
        return Aligner(self.faces.image_size, device_of(self.settings.device))

    @cached_property
    def _classifiers(self) -> dict[str, Classifier]:
        names = self.workspace.manifest("classifiers").details["classifiers"]
        return {name: load_classifier(self.workspace.path("classifiers", name), self.settings.device) for name in names}


def find_models(runs_root: Path) -> pd.DataFrame:
    """Every run with a trained GLOW, the newest first.

    Arguments:
        runs_root: folder of all runs; one that does not exist holds none.

    Returns:
        Columns ``data set``, ``run``, ``image size`` (pixels; missing where the run has no faces), ``methods`` (those
        that it has the parts of) and ``GLOW trained`` (when, to the minute).
    """
    rows = []
    for marker in sorted(Path(runs_root).glob("*/*/glow/manifest.json"), key=lambda file: -file.stat().st_mtime):
        dataset, run = marker.parts[-4:-2]
        with contextlib.suppress(ParameterError):  # a folder that no run could have made
            workspace = Workspace(Path(runs_root), dataset, run)
            faces = Manifest.read(workspace.path("faces"))
            there = [METHODS[name] for name, part in PARTS.items() if workspace.has(part)]
            size = faces and faces.settings.get("image_size")
            trained = f"{pd.Timestamp.fromtimestamp(marker.stat().st_mtime):%Y-%m-%d %H:%M}"
            rows.append((dataset, run, size, ", ".join(there) or "none yet", trained))
    columns = ["data set", "run", "image size", "methods", "GLOW trained"]
    return pd.DataFrame(rows, columns=columns).astype({"image size": "Int64"})
