"""Faces of a run, or of a picture, at any age by any method the run has trained; no widgets."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ageflow.checkpoint import latest
from ageflow.config import ParameterError, Slider
from ageflow.data.align import Aligner
from ageflow.data.faces import Faces
from ageflow.data.pictures import open_image
from ageflow.device import device_of
from ageflow.evaluation.identity import Embedder, load_embedder
from ageflow.evaluation.judges import ATTRIBUTES, classifier_names
from ageflow.flows.glow import load_glow, to_uint8
from ageflow.parameters import settings as settings_of
from ageflow.run import MissingArtefactError, Workspace
from ageflow.training.classifier import load_classifier
from ageflow.translation.ages import GROUP_CENTRES, OLDEST, YOUNGEST, age_to_weights
from ageflow.translation.methods import METHODS, LatentMethod, load_method

_STEP = 0.5  # of the slider, years
# What a run must hold for a method to be offered.
_PARTS = {
    "glow": ("glow", "prototypes"),
    "glow+attribute": ("glow", "prototypes"),
    "no_ictm": ("glow", "no_ictm"),
    "ageflow": ("glow", "ictm"),
}
_SMALLEST = 32  # pixels of a picture's shorter side


class NoFaceError(ValueError):
    """A picture that no face could be taken from; the message says why."""


@dataclass(frozen=True, eq=False)  # told apart by identity: a latent is kept for each
class Portrait:
    """A face to be shown at other ages.

    Arguments:
        image: aligned, uint8 [3, S, S].
        age: its own age, years, as the data set tells it or, for a picture, as the classifier estimates it.
        attributes: its attributes by name.
        about: who it is, in a few words.
    """

    image: Tensor
    age: float
    attributes: dict[str, str | None]
    about: str

    @property
    def own(self) -> float:
        """The place of its own age on the slider, years."""
        return float(np.clip(round(self.age / _STEP) * _STEP, YOUNGEST, OLDEST))


@dataclass(frozen=True)
class Readings:
    """What the judges say of a face that is shown; None where the run has no judge.

    Arguments:
        cosine: similarity to the face before, in [−1, 1], by the embedder of that name.
        embedder: its name.
        age: estimated by the age classifier, years.
    """

    cosine: float
    embedder: str
    age: float | None


class Explorer:
    """Faces of a run at any age, by any method the run has trained.

    Arguments:
        settings: of notebook 09.

    Raises:
        MissingArtefactError: the run has no faces or no GLOW; the message names the notebook to run.
        ParameterError: nobody's age is known in the run's data set, so that it has no directions.

    Example:
        ``explorer.at_age(explorer.portrait(3), 62.0)`` → uint8 [3, S, S]
    """

    def __init__(self, settings: Slider) -> None:
        self.settings = settings
        self.workspace = Workspace.of(settings)
        faces = Faces.open(self.workspace.require("faces"))
        if not faces.ages_known:
            raise ParameterError(
                f"{settings.dataset}/{self.workspace.run}: its data set tells no ages, so nothing was learned about "
                "them; choose a run on faces with ages (it may have begun from this one's GLOW, by init_from)"
            )
        self.faces = faces.select(split="test") or faces
        self.glow = load_glow(self.workspace.require("glow"), settings.device)
        self._loaded: dict[str, LatentMethod] = {}
        # A face is encoded once, however far the slider is dragged; two faces are kept.
        self._latent = lru_cache(maxsize=2)(self._encode)

    def __len__(self) -> int:
        """How many test faces there are."""
        return len(self.faces)

    @property
    def methods(self) -> list[str]:
        """The methods whose parts the run holds."""
        return [name for name, parts in _PARTS.items() if all(map(self.workspace.has, parts))]

    @cached_property
    def scale(self) -> float:
        """s of the two GLOW methods (Eq. 5): what the run's ICTM learned from, or else the data set's."""
        trained = latest(self.workspace.path("ictm"))
        default = settings_of("train_ictm", {"dataset": self.settings.dataset}).scale
        return float(trained.settings["scale"] if trained else default)

    def portrait(self, index: int) -> Portrait:
        """A test face, `index` from 0."""
        row = self.faces.table.iloc[index]
        attributes = {name: None if pd.isna(row[name]) else row[name] for name in ATTRIBUTES if name in row}
        known = [attributes[name] for name in self.faces.attributes if attributes[name]]
        told = [f"test face {index}", f"{round(row['age'], 1):g} years", *known]
        image = self.faces.images([index])[0].contiguous()
        return Portrait(image, float(row["age"]), attributes, ", ".join(told))

    def uploaded(self, content: bytes) -> list[Portrait]:
        """The faces of a picture file, left to right, aligned as the run's are; age and attributes as judged.

        Arguments:
            content: of the file; upright by its EXIF tag, any colours.

        Returns:
            One face or more.

        Raises:
            NoFaceError: no picture, a refused one, or no face in it.
            MissingArtefactError: the run has no classifiers to judge it (notebook 05).
        """
        try:
            picture = open_image(content)
        except (ValueError, MemoryError) as error:
            raise NoFaceError(str(error) or "the picture does not fit into the memory: shrink it") from None
        if min(picture.size) < _SMALLEST:
            size = f"{picture.width}×{picture.height}"
            raise NoFaceError(f"the picture is too small, {size} pixels: a face needs {_SMALLEST}×{_SMALLEST} or more")
        aligned = self._aligner.align_all(picture)
        if not aligned:
            raise NoFaceError(
                "no face was found: it must be seen from the front, and be no smaller than an eighth of the picture"
            )
        images = [torch.from_numpy(face.image).permute(2, 0, 1).contiguous() for face in aligned]
        return [self._judged(image) for image in images]

    @torch.inference_mode()
    def at_age(
        self, portrait: Portrait, age: float, method: str | None = None, strength: float | None = None
    ) -> Tensor:
        """The face at an age.

        Arguments:
            portrait: from `portrait` or `uploaded`.
            age: years; between two groups, their weights are mixed (`age_to_weights`).
            method: a key of `METHODS`; None for the settings'.
            strength: how much of the way (`LatentMethod.at`); None for the settings'.

        Returns:
            uint8 [3, S, S].

        Raises:
            MissingArtefactError, CheckpointError: the method's parts; the message names the notebook to run.
        """
        return self.at_ages(portrait, [age], method, strength)[0]

    @torch.inference_mode()
    def at_ages(
        self, portrait: Portrait, ages: Sequence[float], method: str | None = None, strength: float | None = None
    ) -> Tensor:
        """The same at several ages, decoded together: uint8 [ages, 3, S, S]."""
        moving, z, target, source, attributes = self._prepared(portrait, ages, method, strength)
        return to_uint8(self.glow.decode(moving.move(z, target, source, attributes))).cpu()

    @torch.inference_mode()
    def back(
        self, portrait: Portrait, age: float, method: str | None = None, strength: float | None = None
    ) -> Tensor | None:
        """The face moved to an age and back by the exact inverse, float [3, S, S]; None: the method has none."""
        moving, z, target, source, attributes = self._prepared(portrait, [age], method, strength)
        if not moving.invertible:
            return None
        return self.glow.decode(moving.round_trip(z, target, source, attributes))[0].cpu()

    @torch.inference_mode()
    def read(self, portrait: Portrait, shown: Tensor) -> Readings:
        """What the judges say of `shown`, uint8 [3, S, S], beside the portrait.

        Raises:
            EmbedderError: the embedder of the settings cannot be loaded.
        """
        before, after = self._embedder(torch.stack([portrait.image, shown]))
        age = self.estimated_age(shown) if self.workspace.has("classifiers") else None
        return Readings(float(before @ after), self._embedder.name, age)

    @torch.inference_mode()
    def estimated_age(self, image: Tensor) -> float:
        """The groups' centres averaged by the age classifier's probabilities, years, of a face uint8 [3, S, S]."""
        probabilities = self._logits("age", image).softmax(dim=0)
        return float(probabilities @ probabilities.new_tensor(GROUP_CENTRES))

    def missing(self, method: str) -> str | None:
        """Why a method cannot be shown, with the notebook that makes what it lacks; None where it can."""
        try:
            for part in _PARTS[method]:
                self.workspace.require(part)
        except MissingArtefactError as error:
            return f"{METHODS[method]} is not there: {error}"
        return None

    def _prepared(
        self, portrait: Portrait, ages: Sequence[float], name: str | None, strength: float | None
    ) -> tuple[LatentMethod, Tensor, Tensor, Tensor, dict[str, list]]:
        method = self._method(name or self.settings.method)
        method = method.at(self.settings.strength if strength is None else strength)
        count = len(ages)
        z = self._latent(portrait).expand(count, -1)
        # The face's own age stands between the groups as the target does, so that nothing moves where they meet.
        target, source = (
            torch.stack([age_to_weights(age) for age in years]).to(z.device) for years in (ages, [portrait.own] * count)
        )
        return method, z, target, source, {name: [value] * count for name, value in portrait.attributes.items()}

    def _method(self, name: str) -> LatentMethod:
        """A method, loaded when first asked for; all of them share one GLOW."""
        if name not in self._loaded:
            if problem := self.missing(name):
                raise MissingArtefactError(problem)
            chosen = self.settings
            method = load_method(name, chosen.dataset, chosen.run, chosen.runs_root, chosen.device, self.scale)
            method.glow = self.glow
            self._loaded[name] = method
        return self._loaded[name]

    @torch.inference_mode()
    def _encode(self, portrait: Portrait) -> Tensor:
        return self.glow.encode(portrait.image[None].to(next(self.glow.parameters()).device))

    @cached_property
    def _aligner(self) -> Aligner:
        return Aligner(self.faces.image_size, device_of(self.settings.device))

    @cached_property
    def _embedder(self) -> Embedder:
        return load_embedder(self.settings.embedder, self.settings.device)

    @cached_property
    def _classifiers(self) -> dict[str, torch.nn.Module]:
        folder = self.workspace.require("classifiers")
        return {name: load_classifier(folder / name, self.settings.device) for name in classifier_names(folder)}

    @torch.inference_mode()
    def _logits(self, name: str, image: Tensor) -> Tensor:
        classifier = self._classifiers[name]
        return classifier(image[None].to(next(classifier.parameters()).device))[0]

    def _judged(self, image: Tensor) -> Portrait:
        attributes: dict[str, str | None] = {name: None for name in ATTRIBUTES if name in self.faces.table}
        for name in self._classifiers.keys() - {"age"}:
            attributes[name] = self._classifiers[name].labels[int(self._logits(name, image).argmax())]
        age = self.estimated_age(image)
        told = ["your picture, judged", f"{age:.0f} years", *filter(None, attributes.values())]
        return Portrait(image, age, attributes, ", ".join(told))
