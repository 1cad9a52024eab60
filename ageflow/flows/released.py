"""GLOWs that others trained: checkpoints of two public codes, and files of this kit, as a `Glow`.

The layout is that of rosinality's glow-pytorch (github.com/rosinality/glow-pytorch, model.py) and of the code that
AgeFlow's authors published (github.com/Hzzone/AgeFlow, flow/modules.py; their ``network_config`` 0, and 1, which
has no ActNorm and a fixed permutation for the 1×1 convolution). Both write ``torch.save(model.state_dict())`` with
keys ``blocks.<level>.flows.<step>.…`` and ``blocks.<level>.prior.…``. Where they differ from `Glow`:

* ActNorm multiplies by a scale that may be negative; its sign goes into the 1×1 convolution's U.
* The zero convolutions pad with ones (``edges="ones"``) and multiply by exp(3·scale): the factor goes into weight and
  bias.
* The affine coupling's network puts out the log-scale first, `Glow`'s the shift.
* The deepest prior is a convolution of zeros padded with ones: a constant that differs along the edges.
* Their latents are not whitened; `Glow`'s are: z = (their z − mean)/σ, with the same likelihood. The authors' code
  adds up ActNorm's log-determinant twice; `Glow` gives the true one.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from ageflow.checkpoint import CheckpointError, file_metadata, read_weights
from ageflow.flows.glow import Glow, GlowConfig

_STEP = re.compile(r"blocks\.(\d+)\.flows\.(\d+)\.")


def load_released(
    path: Path | str,
    image_size: int,
    bits: int | None = None,
    memory: Literal["plain", "checkpoint", "reversible"] = "plain",
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Glow:
    """A GLOW with the weights of a public code's checkpoint, ready to encode, decode or train on.

    Levels, steps, hidden channels and coupling are read off the weights; a file that `ageflow.checkpoint.release` wrote
    tells its shape itself.

    Arguments:
        path: the checkpoint: a state dict by `torch.save`, which is read without unpickling code, or safetensors.
        image_size: side of the faces it was trained on; the weights of a convolution do not tell it.
        bits: of the likelihood; None: what a file of the kit tells, and 5 for a public code's, which does not.
        memory, precision: see `GlowConfig`.

    Raises:
        CheckpointError: no such file, not a state dict, or keys or shapes that do not fit; they are named. Or a file of
            the kit's with another network, or for faces of another side.

    Example: the authors' 256×256 GLOW, to fine-tune::

        glow = load_released("generator-1000000", image_size=256, memory="reversible")
    """
    path = Path(path).expanduser()
    asked = {"memory": memory, "precision": precision} | ({} if bits is None else {"bits": bits})
    if path.is_file() and "part" in file_metadata(path):
        return _of_the_kit(path, image_size, asked)
    source = _Source(path)
    config = _config(source, image_size, asked)
    glow = Glow(config)
    state: dict[str, Tensor] = {}
    for level, steps in enumerate(config.steps_per_level):
        half = glow.levels[level].transforms[0].linear.sign.numel() // 2
        for step in range(steps):
            tensors = _step(source, f"blocks.{level}.flows.{step}", half, config.coupling == "affine")
            state |= {f"levels.{level}.transforms.{step}.{name}": tensor for name, tensor in tensors.items()}
        prior = _prior(source, f"blocks.{level}.prior", config.image_size >> config.levels, level == config.levels - 1)
        state |= {f"priors.{level}.{name}": tensor for name, tensor in prior.items()}
    if source.tensors:
        unknown = f"{len(source.tensors)} keys that a GLOW of this shape does not have"
        raise CheckpointError(f"{path} has {unknown}: {', '.join(sorted(source.tensors)[:5])}")
    try:
        glow.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit {config!r}: {error}") from None
    return glow


def _of_the_kit(path: Path, image_size: int, asked: dict[str, Any]) -> Glow:
    """What `ageflow.checkpoint.release` wrote."""
    weights = read_weights(path, "glow")
    if weights.config["image_size"] != image_size:
        raise CheckpointError(f"{path} is of faces of {weights.config['image_size']} pixels: image_size = {image_size}")
    glow = Glow(GlowConfig(**weights.config | asked))
    glow.load_state_dict(weights.state)
    return glow


class _Source:
    """A state dict whose tensors are taken one by one, so that what is left at the end is unknown."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors = {name.removeprefix("module."): tensor for name, tensor in _read(path).items()}

    def error(self, words: str) -> CheckpointError:
        """An error of this file."""
        return CheckpointError(f"{self.path}: {words}")

    def take(self, name: str) -> Tensor:
        """A tensor in float64, so that folding costs no digits."""
        if name not in self.tensors:
            raise CheckpointError(
                f"{self.path} has no {name!r}: it is not a checkpoint of glow-pytorch or of the authors' code, or of "
                "another number of steps in some level"
            )
        tensor = self.tensors.pop(name).double()
        if not bool(torch.isfinite(tensor).all()):
            raise self.error(f"{name!r} holds values that are not finite")
        return tensor


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file: name the public code's checkpoint itself")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a state dict ({str(error).splitlines()[0]}): save it by "
            "torch.save(model.state_dict(), …); whole modules are pickles that may run code, and are refused"
        ) from None
    if not isinstance(tensors, Mapping) or not all(torch.is_tensor(tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{path} holds {type(tensors).__name__}, not a state dict of names and tensors")
    return tensors


def _config(source: _Source, image_size: int, asked: dict[str, Any]) -> GlowConfig:
    """The shape, from the keys and shapes."""
    found = {tuple(map(int, key.groups())) for name in source.tensors if (key := _STEP.match(name))}
    counts = [sum(level == place for level, _ in found) for place in range(len({level for level, _ in found}))]
    network = "blocks.0.flows.0.coupling.net"
    if not counts or 0 in counts or f"{network}.0.weight" not in source.tensors:
        first = ", ".join(sorted(source.tensors)[:3])
        raise source.error(f"it has no keys blocks.0.flows.0.…, but {first}, …: it is of another public code")
    hidden, half = source.tensors[f"{network}.0.weight"].shape[:2]
    affine = source.tensors[f"{network}.4.conv.weight"].shape[0] == 2 * half
    return GlowConfig(
        image_size=image_size, channels=half // 2, levels=len(counts), steps=counts, hidden=hidden,
        coupling="affine" if affine else "additive", prior="learned", edges="ones", **asked,
    )  # fmt: skip


def _step(source: _Source, theirs: str, half: int, affine: bool) -> dict[str, Tensor]:
    """One step's state."""
    scale, bias = torch.ones(1, 2 * half, 1, 1).double(), torch.zeros(1, 2 * half, 1, 1).double()
    if f"{theirs}.actnorm.scale" in source.tensors or f"{theirs}.invconv.indices" not in source.tensors:
        scale, bias = source.take(f"{theirs}.actnorm.scale"), source.take(f"{theirs}.actnorm.loc")
        if not bool(source.take(f"{theirs}.actnorm.initialized")):
            raise source.error(f"{theirs}.actnorm has no values yet: it was saved before training")
        if bool((scale == 0).any()):
            raise source.error(f"{theirs}.actnorm.scale has a zero, so that step has no inverse")
    state = {"actnorm.bias": bias, "actnorm.log_scale": scale.abs().log(), "actnorm.initialized": torch.tensor(True)}
    linear = _linear(source, f"{theirs}.invconv", scale.sign().flatten())
    state |= {f"linear.{name}": tensor for name, tensor in linear.items()}

    network = f"{theirs}.coupling.net"
    for ours, number in (("first", 0), ("middle", 2)):
        for kind in ("weight", "bias"):
            state[f"coupling.network.{ours}.{kind}"] = source.take(f"{network}.{number}.{kind}")
    last = _zero_convolution(source, f"{network}.4")
    if affine:
        last = tuple(torch.cat([tensor[half:], tensor[:half]]) for tensor in last)
    return state | dict(zip(("coupling.network.last.weight", "coupling.network.last.bias"), last, strict=True))


def _linear(source: _Source, theirs: str, sign: Tensor) -> dict[str, Tensor]:
    """P, L and U of the 1×1 convolution, W·diag(`sign`) = P L (U·diag(sign))."""
    for name in ("indices_inverse", "u_mask", "l_mask", "l_eye"):  # constants that follow from the shapes
        source.tensors.pop(f"{theirs}.{name}", None)
    if f"{theirs}.indices" in source.tensors:  # a fixed permutation: output i is input indices[i]
        lower = upper = torch.eye(len(sign), dtype=torch.float64)
        permutation = lower[source.take(f"{theirs}.indices").long()]
    elif f"{theirs}.weight" in source.tensors:  # not decomposed (glow-pytorch's --no_lu)
        permutation, lower, upper = torch.linalg.lu(source.take(f"{theirs}.weight").flatten(1))
    else:
        permutation, lower, upper = (source.take(f"{theirs}.{name}") for name in ("w_p", "w_l", "w_u"))
        diagonal = source.take(f"{theirs}.s_sign") * source.take(f"{theirs}.w_s").exp()
        upper = upper.triu(1) + torch.diag(diagonal)
    upper = upper * sign
    diagonal = upper.diagonal()
    if bool((diagonal == 0).any()):
        raise source.error(f"the 1×1 convolution {theirs} is singular")
    triangles = {"permutation": permutation, "lower": lower.tril(-1), "upper": upper.triu(1)}
    return triangles | {"log_abs": diagonal.abs().log(), "sign": diagonal.sign()}


def _zero_convolution(source: _Source, theirs: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a plain convolution padded with ones."""
    if f"{theirs}.linear.weight" in source.tensors:
        raise source.error(f"{theirs} is conditional (a linear layer of labels); GLOW has none")
    factor = (3 * source.take(f"{theirs}.scale")).exp().flatten()
    weight = source.take(f"{theirs}.conv.weight") * factor[:, None, None, None]
    return weight, source.take(f"{theirs}.conv.bias") * factor


def _prior(source: _Source, theirs: str, side: int, deepest: bool) -> dict[str, Tensor]:
    """A level's prior. The deepest's, for a latent of that side, is a constant: the convolution of zeros, worked out."""
    weight, bias = _zero_convolution(source, theirs)
    if not deepest:
        return {"parameters_of.weight": weight, "parameters_of.bias": bias}
    zeros = F.pad(weight.new_zeros(1, weight.shape[1], side, side), (1, 1, 1, 1), value=1.0)
    mean, log_sigma = F.conv2d(zeros, weight, bias).chunk(2, dim=1)
    return {"mean": mean, "log_sigma": log_sigma}
