"""What a method is, images in, images out; the methods of the ablation (3.4) and two of ours that need no training."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ageflow.checkpoint import CheckpointError, fingerprint, load_state, newest
from ageflow.config import ParameterError
from ageflow.data.faces import Faces
from ageflow.data.records import PAPER_GROUPS, AgeGroups
from ageflow.device import device_of, exact_products
from ageflow.flows.glow import Glow, load_glow
from ageflow.parameters import settings
from ageflow.run import Manifest, Workspace
from ageflow.translation.ages import as_weights
from ageflow.translation.calibration import DecodedAge, Reader
from ageflow.translation.classifier import load_classifier
from ageflow.translation.ictm import ICTM, ConvolutionalTranslator, ICTMConfig, Translator
from ageflow.translation.prototypes import Prototypes

TRANSLATORS: dict[str, type[Translator]] = {"ictm": ICTM, "no_ictm": ConvolutionalTranslator}

# The methods by name, as the paper's Table 3 calls them.
METHODS = {
    "glow": "GLOW",
    "glow+attribute": "GLOW + attribute",
    "soft_source": "Soft source (ours)",
    "calibrated": "Calibrated step (ours)",
    "no_ictm": "AgeFlow w/o ICTM",
    "ageflow": "AgeFlow",
}
# What a run must hold for each, beside its GLOW.
PARTS = {
    "glow": "prototypes",
    "glow+attribute": "prototypes",
    "soft_source": "decoded_age",
    "calibrated": "decoded_age",
    "no_ictm": "no_ictm",
    "ageflow": "ictm",
}
Attributes = Mapping[str, Sequence] | None  # by name, one value a face


class Method(ABC):
    """Anybody's method: faces in, faces at another age out. A subclass needs `translate`; the rest says what it can do.

    Attributes:
        name: as the `methods` parameters have it.
        title: what tables and legends call it.
        age_groups: the groups that it moves faces to; None: those of the faces.
        weights: fingerprints of what it is made of, so that a result can name them and is made again when they change.
        needs: what `translate` needs to know of the faces: ``source``, their own age groups, and ``attributes``.
        reader: the classifier C that a method reads the faces' own ages with; None: it takes `source`.
        invertible: whether it moves latents, and by `LatentMethod.round_trip` back.
        adjustable: whether `at` has other strengths than 1.
        continuous: whether a target may be weights over the groups, any age between.
        live: whether it translates any face; False: it has pictures of some faces, made elsewhere.
        pairs: the (source, target) groups that it can do; None: all.
        strength: how much of the way a face is moved: 1 as far as the method does; `at` has others.
    """

    name: str = ""
    title: str = ""
    age_groups: AgeGroups | None = None
    weights: Mapping[str, str] = MappingProxyType({})
    needs: tuple[str, ...] = ()
    reader: Reader | None = None
    invertible = False
    adjustable = False
    continuous = False
    live = True
    pairs: frozenset[tuple[int, int]] | None = None
    strength = 1.0

    def at(self, strength: float) -> Self:
        """This method at another strength.

        Raises:
            ParameterError: it has one strength alone.
        """
        if strength != 1:
            raise ParameterError(f"strength = {strength!r}: {self.title} has no strengths; expected 1")
        return self

    @abstractmethod
    def translate(
        self, images: Tensor, target: Tensor, source: Tensor | None = None, attributes: Attributes = None
    ) -> Tensor:
        """Faces at another age.

        Arguments:
            images: uint8, or float in [0, 1], [B, 3, S, S].
            target: age groups, int [B]; where it is `continuous`, or weights over the groups, float [B, groups].
            source: the faces' own age groups, int [B], where they are known.
            attributes: by name (gender, race), one value a face, where they are known.

        Returns:
            Faces, float, [0, 1] up to rounding, [B, 3, S, S].
        """

    def translate_faces(self, faces: Faces, rows: np.ndarray, target: Tensor, known: Mapping[str, Any]) -> Tensor:
        """`translate` of prepared faces, rows [B] of them, of whom `known` has `source` and `attributes`."""
        return self.translate(faces.images(rows), target, **known)

    def can(self, faces: Faces, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Which of some prepared faces, rows [B], it can translate to their targets, groups [B]: bool [B]."""
        if self.pairs is None:
            return np.ones(len(rows), bool)
        asked = zip(faces.groups[rows].tolist(), targets.tolist(), strict=True)
        return np.array([pair in self.pairs for pair in asked], bool)

    def own_ages(self, images: Tensor, source: Tensor | None = None) -> Tensor | None:
        """The ages of faces [B, 3, S, S] as this method takes them: what the reader reads in them, or `source`."""
        return source


class LatentMethod(Method):
    """Encode, move the latent, decode.

    Attributes:
        name: a key of `METHODS`.
        glow: the trained flow.
        strength: ours; see `at`.
    """

    age_groups: AgeGroups = PAPER_GROUPS
    invertible = True
    adjustable = True
    continuous = True

    def __init__(self, name: str, glow: Glow, weights: dict[str, str]) -> None:
        self.name, self.title, self.glow, self.weights = name, METHODS[name], glow, weights

    def at(self, strength: float) -> Self:
        """This method at another strength; the weights are shared.

        A direction is that many times as long, and of ICTM's couplings and of the network without ICTM each adds that
        many times what it adds: 0 leaves a face as it is, and at every strength a move is undone as exactly as at 1.

        Raises:
            ValueError: a strength that is no number of 0 or more.

        Example: four fifths of the way to 51+::

            method.at(0.8).translate(images, 3)
        """
        if not math.isfinite(strength) or strength < 0:
            raise ValueError(f"strength = {strength!r}: expected a number of 0 or more; 1 is the method as it is")
        other = copy.copy(self)
        other.strength = float(strength)
        return other

    @property
    def device(self) -> torch.device:
        """Where it computes; images are moved there."""
        return next(self.glow.parameters()).device

    @torch.inference_mode()
    def translate(
        self, images: Tensor, target: Tensor, source: Tensor | None = None, attributes: Attributes = None
    ) -> Tensor:
        """Faces at another age.

        Arguments:
            images: uint8, or float in [0, 1], [B, 3, S, S].
            target: age groups, int [B], or weights over the groups [B, groups], as `age_to_weights` makes them of years:
                any age between. One group, or the weights [1, groups] of one age, is every face's.
            source: the faces' own age groups, int [B], or weights over the groups [B, groups]; GLOW and GLOW +
                attribute need them. A method with a `reader` reads them from the faces, whatever is given.
            attributes: by name, one value a face; where `needs` has them, those of the prototypes.

        Returns:
            Faces, float, [0, 1] up to rounding, [B, 3, S, S].

        Raises:
            ValueError: `source` or `attributes` are needed and not given, a target that is no group or of another
                number of faces, an attribute's value that is misspelt, or float faces that are not in [0, 1].

        Example: a face of 51+ at 40, by GLOW::

            method.translate(images, age_to_weights(40, method.age_groups)[None], source=torch.tensor([3]))
        """
        for needed in self.needs:
            if {"source": source, "attributes": attributes}[needed] is None:
                raise ValueError(f"{self.title} needs the faces' own age groups or attributes: pass {needed}")
        images = torch.as_tensor(images)
        # A translation's values may lie below 0 here and there.
        if images.is_floating_point() and images.numel() and (images < 0).float().mean() > 0.2:
            raise ValueError("float faces are in [0, 1], and many of these values lie below 0: add 1, and halve")
        # Equal faces in a row, as one for each of its targets, are encoded once.
        several = images.ndim == 4 and len(images) > 1
        faces, which = images.unique_consecutive(return_inverse=True, dim=0) if several else (images, slice(None))
        z = self.glow.encode(faces.to(self.device))[which]
        target = as_weights(target, len(self.age_groups), faces=len(z)).to(self.device)
        if self.reader is not None:
            source = self.own_ages(faces)[which]
        elif source is not None:
            source = as_weights(source, len(self.age_groups), faces=len(z)).to(self.device)
        return self.glow.decode(self.move(z, target, source, attributes))

    @torch.inference_mode()
    def own_ages(self, images: Tensor, source: Tensor | None = None) -> Tensor | None:
        """What `move` takes as the source of faces [B, 3, S, S]: what the reader reads in them, or `source`."""
        return source if self.reader is None else self.reader(images.to(self.device))

    @abstractmethod
    def move(self, z: Tensor, target: Tensor, source: Tensor | None, attributes: Attributes) -> Tensor:
        """Latents [B, D] at another age."""

    @abstractmethod
    def round_trip(self, z: Tensor, target: Tensor, source: Tensor | None, attributes: Attributes) -> Tensor:
        """Latents [B, D] moved to another age and back by the move's exact inverse: z again, up to rounding.

        Raises:
            ValueError: the method is not `invertible`.
        """


class PrototypeMethod(LatentMethod):
    """z_s + s·(z̄_t − z̄_s), Eq. 5, by one of four names.

    ``glow`` takes the groups' averages, ``glow+attribute`` those of the face's own attributes. ``soft_source`` and
    ``calibrated`` are ours: they take ages and attributes as C reads them in the face, z̄_s is Σ_k q_k z̄_k with its
    probabilities q; and the calibrated step goes so far that C reads the age that is asked for (`Reader.lengths`).

    Arguments:
        name, glow, weights: as `LatentMethod`.
        prototypes: average latents.
        scale: s.
        reader: C, for the two that read the face's age.
    """

    def __init__(
        self,
        name: str,
        glow: Glow,
        weights: dict[str, str],
        prototypes: Prototypes,
        scale: float,
        reader: Reader | None = None,
    ) -> None:
        super().__init__(name, glow, weights)
        self.age_groups = prototypes.age_groups
        self.prototypes, self.scale, self.reader = prototypes.to(self.device), scale, reader
        by_attribute = name == "glow+attribute" and prototypes.attributes
        self.needs = () if reader else ("source", "attributes") if by_attribute else ("source",)

    def move(self, z: Tensor, target: Tensor, source: Tensor | None, attributes: Attributes) -> Tensor:
        return z + self._step(z, target, source, attributes)

    def round_trip(self, z: Tensor, target: Tensor, source: Tensor | None, attributes: Attributes) -> Tensor:
        step = self._step(z, target, source, attributes)
        return (z + step) - step

    def _step(self, z: Tensor, target: Tensor, source: Tensor | None, attributes: Attributes) -> Tensor:
        if self.reader is None:
            combination = self.prototypes.combination_of(attributes if "attributes" in self.needs else None, len(z))
            return self.strength * self.scale * self.prototypes.direction(source, target, combination)
        target = as_weights(target, len(self.age_groups), faces=len(z))
        lengths = self.reader.lengths(z, source, target)[:, None] if self.name == "calibrated" else 1.0
        return self.strength * lengths * self.reader.step(source, target)


class TranslatorMethod(LatentMethod):
    """AgeFlow and AgeFlow w/o ICTM: a trained network moves the latent; it needs nothing but the face and the target."""

    def __init__(
        self, name: str, glow: Glow, weights: dict[str, str], translator: Translator, reader: Reader | None
    ) -> None:
        super().__init__(name, glow, weights)
        self.translator, self.reader = translator, reader
        self.invertible = isinstance(translator, ICTM)

    def move(self, z: Tensor, target: Tensor, source: Tensor | None, attributes: Attributes) -> Tensor:
        with exact_products(z.device):
            return self._moved(z, target, source)[0]

    def round_trip(self, z: Tensor, target: Tensor, source: Tensor | None, attributes: Attributes) -> Tensor:
        if not self.invertible:
            raise ValueError(f"{self.title} has no inverse: its network cannot be run backwards")
        with exact_products(z.device):
            return self.translator.inverse(*self._moved(z, target, source), self.strength)[0]

    def _moved(self, z: Tensor, target: Tensor, source: Tensor | None) -> tuple[Tensor, ...]:
        if self.reader is None:
            return self.translator(z, target, self.strength)
        target = as_weights(target, len(self.age_groups), faces=len(z)).to(z)
        return self.translator(z, target, self.strength, source, self.reader.lengths(z, source, target))


def load_latent_method(
    name: str, workspace: Workspace, device: str = "auto", scale: float | None = None
) -> LatentMethod:
    """A trained method of a run that moves latents; arguments and errors as of `ageflow.load_method`."""
    glow_folder = workspace.require("glow")
    weights = {"glow": fingerprint(glow_folder)}
    glow, folder = load_glow(glow_folder, device), workspace.require(PARTS[name])
    reader = None

    def load_prototypes() -> Prototypes:
        return Prototypes.load(workspace.require("prototypes"), glow=weights["glow"])

    def read_by(c: Path, scale: float, visible: Callable[[Tensor], Tensor] | None = None) -> tuple[Reader, str]:
        decoded_age = DecodedAge(glow, load_classifier(c, device))
        return Reader(decoded_age, load_prototypes().to(device_of(device)), scale, visible), fingerprint(c)

    if PARTS[name] in TRANSLATORS:
        trained = newest(folder)
        if trained.inputs["glow"] != weights["glow"]:
            raise CheckpointError(f"{folder} is of another GLOW: run 03_prototypes.ipynb, then train with restart=True")
        shape = trained.networks["translator"]
        config = ICTMConfig(**{key: shape[key] for key in ICTMConfig.model_fields if key in shape})
        arguments = (shape[key] for key in ("latent_shapes", "groups", "combinations"))
        translator = TRANSLATORS[shape["kind"]](config, *arguments)
        load_state(translator, folder, "translator")  # the averaged weights
        translator.to(device_of(device)).eval().requires_grad_(False)
        if config.condition == "source_aware":
            c, scale = workspace.require("decoded_age"), trained.settings["scale"]
            reader, weights["decoded_age"] = read_by(c, scale, translator.visible.only)
            weights["prototypes"] = reader.prototypes.fingerprint  # of which its steps are
            if other := [part for part in ("decoded_age", "prototypes") if trained.inputs[part] != weights[part]]:
                raise CheckpointError(f"{folder} was trained with other {' and '.join(other)}: train with restart=True")
        method = TranslatorMethod(name, glow, weights | {PARTS[name]: fingerprint(folder)}, translator, reader)
        method.age_groups = AgeGroups.noted(shape)
        return method
    if scale is None:
        trained = Manifest.read(workspace.path("ictm"))
        scale = trained.settings["scale"] if trained else settings("train_ictm", {"dataset": workspace.dataset}).scale
    prototypes = load_prototypes()
    if name in ("soft_source", "calibrated"):
        reader, weights["decoded_age"] = read_by(folder, scale)
    weights |= {"prototypes": prototypes.fingerprint, "scale": str(scale)}
    return PrototypeMethod(name, glow, weights, prototypes, scale, reader)
