"""The age slider: one face at any age, from a run's test faces or from a picture of one's own."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ageflow.config import Slider
from ageflow.data.align import Aligner
from ageflow.data.faces import Faces
from ageflow.data.records import AGE_GROUPS
from ageflow.flows.glow import to_uint8
from ageflow.storage import device_of
from ageflow.training.classifier import load_classifier
from ageflow.translation.methods import METHODS, LatentMethod, load_method
from ageflow.workspace import MissingArtefactError, Workspace

__all__ = ["GROUP_CENTRES", "Explorer", "NoFaceError", "Portrait", "age_slider", "age_to_weights"]

# The age at which a group's weight is one. The first and the last group are open: a decade like the others.
GROUP_CENTRES = (25.0, 35.5, 45.5, 57.0)
_YOUNGEST, _OLDEST = 20.0, 65.0
# What a run must hold for a method to be offered.
_PARTS = {
    "ageflow": ("glow", "ictm"),
    "glow": ("glow", "prototypes", "ictm"),
    "glow+attribute": ("glow", "prototypes", "ictm"),
    "no_ictm": ("glow", "no_ictm"),
}
_SHOWN = 256  # pixels; smaller faces are enlarged to it


class NoFaceError(ValueError):
    """A picture that no face could be taken from; the message says why."""


def age_to_weights(age: float) -> Tensor:
    """Weights over the age groups that stand for an age: linear between the two nearest centres.

    Arguments:
        age: years. Below the first centre and beyond the last, the outer group alone.

    Returns:
        Float [groups], at least zero, summing to 1.

    Example:
        >>> age_to_weights(40.5).tolist()
        [0.0, 0.5, 0.5, 0.0]
    """
    one_hot = np.eye(len(GROUP_CENTRES), dtype=np.float32)
    return torch.tensor([np.interp(age, GROUP_CENTRES, column) for column in one_hot], dtype=torch.float32)


@dataclass(frozen=True, eq=False)  # told apart by identity: a latent is kept for each
class Portrait:
    """A face to be shown at other ages.

    Arguments:
        image: aligned, uint8 [3, S, S].
        group: its own age group.
        attributes: its attributes by name.
        about: who it is, in a few words.
    """

    image: Tensor
    group: int
    attributes: dict[str, str | None]
    about: str


class Explorer:
    """Faces of a run at any age, by any method the run has trained; no widgets.

    Arguments:
        settings: of notebook 09.

    Raises:
        MissingArtefactError: the run lacks what `settings.method` needs; the message names the notebook to run.

    Example:
        ``explorer.at_age(explorer.portrait(3), 62.0)`` → uint8 [3, S, S]
    """

    def __init__(self, settings: Slider) -> None:
        self.settings = settings
        workspace = Workspace.of(settings)
        faces = Faces.open(workspace.require("faces"))
        test = faces.select(split="test")
        self.faces = test if len(test) else faces
        self.methods = [name for name, parts in _PARTS.items() if all(map(workspace.has, parts))]
        self._loaded: dict[str, LatentMethod] = {}
        self.glow = self._method(settings.method).glow
        # A face is encoded once, however far the slider is dragged; two faces are kept.
        self._latent = lru_cache(maxsize=2)(self._encode)

    def __len__(self) -> int:
        """How many test faces there are."""
        return len(self.faces)

    def portrait(self, index: int) -> Portrait:
        """A test face, `index` from 0."""
        row = self.faces.table.iloc[index]
        attributes = {name: None if pd.isna(row[name]) else row[name] for name in self.faces.attributes}
        told = [f"test face {index}", f"{row['age']:.0f} years", *filter(None, attributes.values())]
        return Portrait(self.faces.images([index])[0].contiguous(), int(row["group"]), attributes, ", ".join(told))

    def uploaded(self, content: bytes) -> Portrait:
        """The face of a picture file, aligned as the run's faces are; its age group and attributes as judged.

        Raises:
            NoFaceError: no picture, or no face in it.
            MissingArtefactError: the run has no classifiers to judge it (notebook 05).
        """
        try:
            picture = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
            raise NoFaceError(f"that file is no picture that can be read: {error}") from None
        (aligned,) = self._aligner.align([picture])
        if isinstance(aligned, str):
            raise NoFaceError(f"no face could be taken from that picture: {aligned}")
        image = torch.from_numpy(aligned.image).permute(2, 0, 1).contiguous()
        group, attributes = self._judge(image)
        told = ["your picture, judged", AGE_GROUPS[group], *attributes.values()]
        return Portrait(image, group, attributes, " ".join(told))

    @torch.inference_mode()
    def at_age(self, portrait: Portrait, age: float, method: str | None = None) -> Tensor:
        """The face at an age.

        Arguments:
            portrait: from `portrait` or `uploaded`.
            age: years; between two groups, their weights are mixed (`age_to_weights`).
            method: one of `methods`; None for the settings'.

        Returns:
            uint8 [3, S, S].
        """
        z = self._latent(portrait)
        source = torch.tensor([portrait.group], device=z.device)
        attributes = {name: [value] for name, value in portrait.attributes.items()}
        moved = self._method(method or self.settings.method).move(
            z, age_to_weights(age)[None].to(z.device), source, attributes
        )
        return to_uint8(self.glow.decode(moved))[0].cpu()

    def _method(self, name: str) -> LatentMethod:
        """A method, loaded when first asked for; all of them share one GLOW."""
        if name not in self._loaded:
            chosen = self.settings
            method = load_method(name, chosen.dataset, chosen.run, chosen.runs_root, chosen.device)
            if self._loaded:
                method.glow = self.glow
            self._loaded[name] = method
        return self._loaded[name]

    def _encode(self, portrait: Portrait) -> Tensor:
        return self.glow.encode(portrait.image[None].to(next(self.glow.parameters()).device))

    @cached_property
    def _aligner(self) -> Aligner:
        return Aligner(self.faces.image_size, device_of(self.settings.device))

    @cached_property
    def _classifiers(self) -> dict[str, torch.nn.Module]:
        folder = Workspace.of(self.settings).require("classifiers")
        return {name: load_classifier(folder / name, self.settings.device) for name in ("age", *self.faces.attributes)}

    @torch.inference_mode()
    def _judge(self, image: Tensor) -> tuple[int, dict[str, str]]:
        labels = {}
        for name, classifier in self._classifiers.items():
            logits = classifier(image[None].to(next(classifier.parameters()).device))
            labels[name] = classifier.labels[int(logits.argmax())]
        return AGE_GROUPS.index(labels.pop("age")), labels


class AgeSlider(widgets.VBox):
    """The explorer as widgets: the face, the same face at the slider's age, and what to choose from."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.portrait = explorer.portrait(0)
        choices = [(METHODS[name], name) for name in explorer.methods]
        self.face = widgets.IntSlider(0, 0, len(explorer) - 1, description="test face", continuous_update=False)
        self.upload = widgets.FileUpload(accept="image/*", multiple=False, description="own picture")
        self.method = widgets.Dropdown(options=choices, value=explorer.settings.method, description="method")
        self.age = widgets.FloatSlider(
            40.0, min=_YOUNGEST, max=_OLDEST, step=0.5, description="age", readout_format=".1f"
        )
        self.age.layout.width = "540px"
        self.original, self.aged = widgets.Image(width=_SHOWN), widgets.Image(width=_SHOWN)
        self.about, self.said, self.problem = widgets.Label(), widgets.Label(), widgets.HTML()
        for name in ("age", "face", "method", "original", "aged", "problem"):
            getattr(self, name).add_class(f"ageflow-{name}")
        self.face.observe(self._on_face, "value")
        self.upload.observe(self._on_upload, "value")
        self.age.observe(self._on_change, "value")
        self.method.observe(self._on_change, "value")
        pictures = [widgets.VBox([self.original, self.about]), widgets.VBox([self.aged, self.said])]
        super().__init__(
            [widgets.HBox([self.face, self.upload]), self.method, self.age, widgets.HBox(pictures), self.problem]
        )
        self._show_original()

    def strip(self, ages: Sequence[float] = (20, 27, 35, 42, 50, 57, 65)) -> Image.Image:
        """The chosen face, and beside it the same face at `ages` (years) by the chosen method, as one picture."""
        aged = [self.explorer.at_age(self.portrait, age, self.method.value) for age in ages]
        faces = [_enlarged(image, _SHOWN // 2) for image in (self.portrait.image, *aged)]
        strip = Image.new("RGB", (sum(face.width + 4 for face in faces) + 8, faces[0].height), "white")
        left = 0
        for number, face in enumerate(faces):
            strip.paste(face, (left, 0))
            left += face.width + (12 if number == 0 else 4)
        return strip

    def _on_face(self, change: dict) -> None:
        self.portrait = self.explorer.portrait(change["new"])
        self._show_original()

    def _on_upload(self, change: dict) -> None:
        if not change["new"]:
            return
        try:
            self.portrait = self.explorer.uploaded(bytes(change["new"][0]["content"]))
        except (NoFaceError, MissingArtefactError) as error:
            self.problem.value = f"<b>{error}</b>"
            return
        self._show_original()

    def _on_change(self, _: dict) -> None:
        self._show_aged()

    def _show_original(self) -> None:
        self.problem.value = ""
        self.original.value = _png(self.portrait.image)
        self.about.value = self.portrait.about
        self._show_aged()

    def _show_aged(self) -> None:
        age = self.age.value
        self.aged.value = _png(self.explorer.at_age(self.portrait, age, self.method.value))
        weights = age_to_weights(age).tolist()
        mixed = [f"{weight:.0%} {group}" for group, weight in zip(AGE_GROUPS, weights, strict=True) if weight > 0]
        self.said.value = f"at {age:.1f} years: {', '.join(mixed)}"


def age_slider(settings: Slider) -> AgeSlider:
    """The age slider of a run, to be shown in a notebook cell.

    Raises:
        MissingArtefactError: the run lacks a part; the message names the notebook to run.
    """
    return AgeSlider(Explorer(settings))


def _enlarged(image: Tensor, side: int) -> Image.Image:
    """A face, uint8 [3, S, S], as a picture at least `side` pixels wide."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return picture if picture.width >= side else picture.resize((side, side), Image.Resampling.BICUBIC)


def _png(image: Tensor) -> bytes:
    held = io.BytesIO()
    _enlarged(image, _SHOWN).save(held, "PNG", compress_level=1)
    return held.getvalue()
