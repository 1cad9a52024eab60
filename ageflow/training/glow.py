"""Train GLOW by maximum likelihood (Eq. 4) on prepared faces."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from ageflow.config import TrainGlow, validated
from ageflow.data.faces import Faces
from ageflow.device import device_of, sent
from ageflow.flows.glow import Glow, GlowConfig, to_uint8
from ageflow.flows.released import load_released
from ageflow.run import Manifest, Workspace
from ageflow.training.distributed import launched
from ageflow.training.loop import train
from ageflow.training.metrics import save_faces
from ageflow.training.task import MicroBatch, Objective, Task, Values, begun, initial_weights, sample_batch

# Faces that ActNorm's first values and the validation likelihood are computed from.
_INITIAL_FACES = 128
_VALIDATION_FACES = 256


class GlowTask(Task):
    """Maximise the log-likelihood of dequantised faces, in bits per dimension (Eq. 4)."""

    def __init__(self, settings: TrainGlow, faces: Faces) -> None:
        self.settings, self.device = settings, device_of(settings.device)
        self.training, self.testing = (faces.select(split=split) for split in ("train", "test"))
        self.glow = _new_glow(settings, faces)
        self.modules = nn.ModuleDict({"glow": self.glow})
        self.objectives = [Objective("glow", list(self.glow.parameters()), self.loss, settings.learning_rate)]
        self.manifest = Manifest({"faces": faces.fingerprint}, settings.model_dump(mode="json"))
        self.networks = {"glow": self.glow.config.shape}

    def start(self) -> None:
        """Set ActNorm from the first faces, unless `init_from` names weights, which include it."""
        if self.settings.init_from is not None:
            return
        images = self.training.images(sample_batch(len(self.training), _INITIAL_FACES, self.settings.seed, 0))
        self.glow.initialize(self.glow.dequantize(images.to(self.device)))

    def loss(self, part: MicroBatch) -> tuple[Tensor, Values]:
        """Mean bits per dimension of a micro-batch."""
        images = sent(self.training.images(part.choose(len(self.training), self.settings.seed)), self.device)
        noise = part.rows(torch.rand((part.size, *images.shape[1:]), device=self.device))
        if self.settings.flip:
            mirrored = part.rows(torch.rand(part.size, device=self.device)) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return self.glow.bits_per_dim(images, noise=noise).mean(), {}

    @torch.inference_mode()
    def preview(self, averaged: nn.ModuleDict, folder: Path, iteration: int) -> dict[str, float]:
        """A sheet of samples, and the bits per dimension of held-out faces with fixed noise."""
        glow: Glow = averaged["glow"]
        samples = glow.sample(16, self.settings.temperature, self.settings.seed)
        save_faces(samples, folder / f"samples-{iteration:08d}.png", columns=8)
        generator = torch.Generator(self.device).manual_seed(self.settings.seed)
        passes = _passes(self.testing, _VALIDATION_FACES, self.settings)
        bits = [glow.bits_per_dim(images.to(self.device), generator) for images in passes]
        return {"test/bits_per_dim": float(torch.cat(bits).mean())} if bits else {}


def _passes(faces: Faces, count: int, settings: TrainGlow) -> Iterator[Tensor]:
    """The first `count` faces, never more at once than training passes, uint8 [B, 3, S, S]."""
    count = min(count, len(faces))
    step = min(settings.batch_size, settings.micro_batch if isinstance(settings.micro_batch, int) else 8)
    for start in range(0, count, step):
        yield faces.images(slice(start, min(start + step, count)))


def _new_glow(settings: TrainGlow, faces: Faces) -> Glow:
    """The flow to train: of the settings' shape, or of the public checkpoint's that `init_from` names."""
    config = glow_config(settings, faces.image_size)
    if settings.init_from is not None and (checkpoint := begun(settings, "glow")):
        return Glow(GlowConfig(**checkpoint.networks["glow"] | config.model_dump(include={"memory", "precision"})))
    weights = initial_weights(settings, "glow", "glow", faces)
    if isinstance(weights, Path):
        glow = load_released(weights, config.image_size, config.bits, config.memory, config.precision)
        own = config.shape | {"edges": glow.config.edges, "seed": glow.config.seed}  # no setting is of these
        theirs = [f"{name} = {value}" for name, value in glow.config.shape.items() if value != own[name]]
        if theirs:
            what = f"the GLOW has the shape of {weights}, not of the settings"
            warnings.warn(f"{what}: {', '.join(theirs)}", stacklevel=4)
        return glow
    if weights is None:
        return Glow(config)
    # No setting has `edges`: only weights from a public code have ones, and keep them.
    glow = Glow(config.model_copy(update={"edges": weights.config["edges"]}))
    weights.fill(glow, {name: value for name, value in glow.config.shape.items() if name not in ("bits", "seed")})
    return glow


def glow_config(settings: TrainGlow, image_size: int) -> GlowConfig:
    """The flow that `settings` ask for, at the faces' size; errors as `ageflow.config.validated`."""
    deepest = image_size >> settings.levels
    if deepest % 2:
        left = f"levels = {settings.levels} leaves a deepest level of {deepest}×{deepest}, which the ICTM cannot halve"
        warnings.warn(f"{left}: take fewer levels, or leave this one out of notebook 04's latent", stacklevel=2)
    return validated(GlowConfig, {"image_size": image_size} | settings.model_dump(include=set(GlowConfig.model_fields)))


def train_glow(settings: TrainGlow) -> Path:
    """Train GLOW on the run's prepared faces; returns the run's ``glow`` folder. Stopped, it continues.

    Raises:
        MissingArtefactError: the faces are not prepared yet.
        ConfigChangedError: the folder holds a GLOW trained with other values.
    """
    faces, folder = Faces.open(Workspace.of(settings).require("faces")), Workspace.of(settings).path("glow")
    if not launched(settings, folder):
        train(GlowTask(settings, faces), settings, folder)
    return folder


@torch.inference_mode()
def describe_glow(glow: Glow, faces: Faces, settings: TrainGlow, count: int = 64) -> pd.DataFrame:
    """What a trained GLOW does with held-out faces, one row.

    Arguments:
        glow: a trained flow.
        faces: prepared faces; the test split is used, or, where it holds none, all of them.
        settings: batch size and seed.
        count: how many faces.

    Returns:
        ``faces``, ``split`` (of which half they are), ``bits_per_dim`` (at the flow's bits, one draw of noise),
        ``largest_error`` of decode(encode(·)) in the [0, 1] range, and ``equal_8_bit``, the share of 8-bit values that
        come back.
    """
    held_out = faces.select(split="test")
    device = next(glow.parameters()).device
    generator = torch.Generator(device).manual_seed(settings.seed)
    found = []
    for images in _passes(held_out or faces, count, settings):
        images = images.to(device)
        back = glow.decode(glow.encode(images))
        errors = (back - images / 255).abs().amax((1, 2, 3))
        equal = (to_uint8(back) == images).float().mean((1, 2, 3))
        found.append(torch.stack([glow.bits_per_dim(images, generator), errors, equal]))
    bits, errors, equal = torch.cat(found, dim=1)
    values = {
        "faces": len(bits),
        "split": "test" if held_out else "train",
        "bits_per_dim": float(bits.mean()),
        "largest_error": float(errors.max()),
        "equal_8_bit": float(equal.mean()),
        "steps": sum(glow.config.steps_per_level),
        "parameters": sum(parameter.numel() for parameter in glow.parameters()),
    }
    return pd.DataFrame([values])
