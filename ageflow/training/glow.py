"""Train GLOW by maximum likelihood (Eq. 4) on prepared faces."""

import warnings
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from ageflow.checkpoint import Weights, checkpoints, find_weights, latest, read_weights
from ageflow.config import TrainGlow, validated
from ageflow.data.faces import Faces, warn_of_known_people
from ageflow.device import device_of
from ageflow.flows.glow import Glow, GlowConfig, to_uint8
from ageflow.flows.released import load_released
from ageflow.run import Manifest, Workspace
from ageflow.training.launch import launched
from ageflow.training.loop import train
from ageflow.training.metrics import save_faces
from ageflow.training.task import MicroBatch, Objective, Task, sample_batch

# Faces that ActNorm's first values and the validation likelihood are computed from.
_INITIAL_FACES = 128
_VALIDATION_FACES = 256


class GlowTask(Task):
    """Maximise the log-likelihood of dequantised faces, in bits per dimension (Eq. 4)."""

    def __init__(self, settings: TrainGlow, faces: Faces) -> None:
        self.settings = settings
        self.device = device_of(settings.device)
        self.training = faces.select(split="train")
        self.testing = faces.select(split="test")
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

    def loss(self, part: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean bits per dimension of a micro-batch."""
        images = self.training.images(part.choose(len(self.training), self.settings.seed))
        images = images.to(self.device, non_blocking=True)
        noise = part.rows(torch.rand((part.size, *images.shape[1:]), device=self.device))
        if self.settings.flip:
            mirrored = part.rows(torch.rand(part.size, device=self.device)) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return self.glow.bits_per_dim(images, noise=noise).mean(), {}

    @torch.inference_mode()
    def preview(self, averaged: nn.ModuleDict, folder: Path, iteration: int) -> dict[str, float]:
        """A sheet of samples, and the bits per dimension of held-out faces with fixed noise."""
        glow: Glow = averaged["glow"]
        at_a_time = _at_a_time(self.settings)
        samples = glow.sample(16, self.settings.temperature, self.settings.seed)
        save_faces(samples, folder / f"samples-{iteration:08d}.png", columns=8)
        if len(self.testing) == 0:
            return {}
        total, count = 0.0, min(len(self.testing), _VALIDATION_FACES)
        generator = torch.Generator(self.device).manual_seed(self.settings.seed)
        for start in range(0, count, at_a_time):
            images = self.testing.images(slice(start, min(start + at_a_time, count)))
            total += float(glow.bits_per_dim(images.to(self.device), generator).sum())
        return {"test/bits_per_dim": total / count}


def _at_a_time(settings: TrainGlow) -> int:
    """Faces in one pass of an evaluation: never more than training passes at once."""
    return min(settings.batch_size, settings.micro_batch if isinstance(settings.micro_batch, int) else 8)


def _new_glow(settings: TrainGlow, faces: Faces) -> Glow:
    """The flow to train: of the settings' shape, or of the public checkpoint's that `init_from` names."""
    config = glow_config(settings, faces.image_size)
    how = {"memory": config.memory, "precision": config.precision}
    folder = Workspace.of(settings).path("glow")
    if settings.init_from is None:
        return Glow(config)
    if checkpoints(folder) and not settings.restart:  # it has begun, and needs the weights that it began from no more
        return Glow(GlowConfig(**latest(folder).networks["glow"] | how))
    path = find_weights(settings.init_from, settings.runs_root, "glow")
    warn_of_known_people(settings.init_from, path, faces)
    weights = read_weights(path, "glow")
    return _public_glow(path, config) if weights is None else _from_weights(weights, config)


def _from_weights(weights: Weights, config: GlowConfig) -> Glow:
    # No setting has `edges`: only weights from a public code have ones, and keep them.
    glow = Glow(config.model_copy(update={"edges": weights.config["edges"]}))
    weights.fill(glow, {name: value for name, value in glow.config.shape.items() if name not in ("bits", "seed")})
    return glow


def _public_glow(path: Path, config: GlowConfig) -> Glow:
    glow = load_released(path, config.image_size, config.bits, config.memory, config.precision)
    ours, theirs = config.shape, glow.config.shape
    differ = [name for name in ("levels", "steps", "hidden", "coupling", "prior") if ours[name] != theirs[name]]
    if differ:
        values = ", ".join(f"{name} = {theirs[name]}" for name in differ)
        warnings.warn(f"the GLOW has the shape of {path}, not of the settings: {values}", stacklevel=3)
    return glow


def glow_config(settings: TrainGlow, image_size: int) -> GlowConfig:
    """The flow that `settings` ask for, at the faces' size; errors as `ageflow.config.validated`."""
    names = ("levels", "steps", "hidden", "coupling", "prior", "bits", "memory", "precision", "seed")
    deepest = image_size >> settings.levels
    if deepest % 2:
        warnings.warn(
            f"levels = {settings.levels} leaves faces of {image_size} pixels a deepest level of {deepest}×{deepest}: the "
            "ICTM halves every level that it sees, so for notebook 04 take fewer levels, or its latent without this one",
            stacklevel=2,
        )
    return validated(GlowConfig, {"image_size": image_size} | {name: getattr(settings, name) for name in names})


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
    testing = held_out or faces
    count = min(count, len(testing))
    device = next(glow.parameters()).device
    generator = torch.Generator(device).manual_seed(settings.seed)
    bits, errors, equal = [], [], []
    at_a_time = _at_a_time(settings)
    for start in range(0, count, at_a_time):
        images = testing.images(slice(start, min(start + at_a_time, count))).to(device)
        back = glow.decode(glow.encode(images))
        bits.append(glow.bits_per_dim(images, generator))
        errors.append((back - images / 255).abs().amax())
        equal.append((to_uint8(back) == images).float().mean((1, 2, 3)))
    values = {
        "faces": count,
        "split": "test" if held_out else "train",
        "bits_per_dim": float(torch.cat(bits).mean()),
        "largest_error": float(torch.stack(errors).max()),
        "equal_8_bit": float(torch.cat(equal).mean()),
        "steps": sum(glow.config.steps_per_level),
        "parameters": sum(parameter.numel() for parameter in glow.parameters()),
    }
    return pd.DataFrame([values])
