"""GLOWs that others trained: checkpoints of two public codes, and files of this kit, as a `Glow`.

The layout is that of rosinality's glow-pytorch (github.com/rosinality/glow-pytorch, model.py) and of the code that
AgeFlow's authors published (github.com/Hzzone/AgeFlow, flow/modules.py; their ``network_config`` 0, and 1, which
has no ActNorm and a fixed permutation for the 1×1 convolution). Both write ``torch.save(model.state_dict())`` with
keys ``blocks.<level>.flows.<step>.…`` and ``blocks.<level>.prior.…``. Where they differ from `Glow`:

* ActNorm multiplies by a scale that may be negative; its sign goes into the 1×1 convolution's U.
* The zero convolutions pad with ones and multiply by exp(3·scale): the factor goes into weight and bias, the ones
  into ``edges="ones"``.
* The affine coupling's network puts out the log-scale first, `Glow`'s the shift.
* The deepest prior is a convolution of zeros padded with ones: a constant that differs along the edges.
* Their latents are not whitened; `Glow`'s are: z = (their z − mean)/σ, with the same likelihood. The authors' code
  adds up ActNorm's log-determinant twice; `Glow` gives the true one.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from ageflow.checkpoint import CheckpointError, file_metadata, read_weights
from ageflow.flows.glow import Glow, GlowConfig


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
    if path.is_file() and "part" in file_metadata(path):
        more = {"memory": memory, "precision": precision} | ({} if bits is None else {"bits": bits})
        return _own(path, image_size, more)
    source = _Source(path, _read(path))
    config = _config(source, image_size).model_copy(
        update={"bits": 5 if bits is None else bits, "memory": memory, "precision": precision}
    )
    glow = Glow(config)
    state: dict[str, Tensor] = {}
    for level, steps in enumerate(config.steps_per_level):
        for step in range(steps):
            theirs, ours = f"blocks.{level}.flows.{step}", f"levels.{level}.transforms.{step}"
            half = glow.levels[level].transforms[step].linear.sign.numel() // 2
            state |= {f"{ours}.{name}": tensor for name, tensor in _step(source, theirs, half, config).items()}
        deepest = level == config.levels - 1
        prior = _deepest_prior(source, level, glow.latent_shapes[level]) if deepest else _prior(source, level)
        state |= {f"priors.{level}.{name}": tensor for name, tensor in prior.items()}
    source.check_all_used()
    try:
        glow.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit {config!r}: {error}") from None
    return glow


def _own(path: Path, image_size: int, more: dict[str, Any]) -> Glow:
    """What `ageflow.checkpoint.release` wrote."""
    weights = read_weights(path, "glow")
    if weights.config["image_size"] != image_size:
        raise CheckpointError(f"{path} is of faces of {weights.config['image_size']} pixels: image_size = {image_size}")
    glow = Glow(GlowConfig(**weights.config | more))
    glow.load_state_dict(weights.state)
    return glow


class _Source:
    """Tensors by name; knows which have been asked for."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        self.path = path
        self.tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        """float64, so that folding costs no digits."""
        if name not in self.tensors:
            raise CheckpointError(
                f"{self.path} has no {name!r}: it is not a checkpoint of glow-pytorch or of the authors' code, or of "
                "another number of steps in some level"
            )
        self._used.add(name)
        tensor = self.tensors[name]
        if not bool(torch.isfinite(tensor.double()).all()):
            raise CheckpointError(f"{self.path}: {name!r} holds values that are not finite")
        return tensor.double()

    def ignore(self, *names: str) -> None:
        """Constants that follow from the shapes."""
        self._used.update(names)

    def check_all_used(self) -> None:
        if unknown := sorted(self.tensors.keys() - self._used):
            raise CheckpointError(
                f"{self.path} has {len(unknown)} keys that a GLOW of this shape does not have: {', '.join(unknown[:5])}"
            )


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file: name the public code's checkpoint itself")
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a state dict ({str(error).splitlines()[0]}): save it by "
            "torch.save(model.state_dict(), …); whole modules are pickles that may run code, and are refused"
        ) from None
    if not isinstance(tensors, Mapping) or not tensors or not all(torch.is_tensor(t) for t in tensors.values()):
        raise CheckpointError(f"{path} holds {type(tensors).__name__}, not a state dict of names and tensors")
    return tensors


def _config(source: _Source, image_size: int) -> GlowConfig:
    """The shape that the keys and shapes tell."""
    steps: dict[int, int] = {}
    for name in source.tensors:
        parts = name.split(".")
        if len(parts) > 3 and parts[0] == "blocks" and parts[2] == "flows":
            level = int(parts[1])
            steps[level] = max(steps.get(level, 0), int(parts[3]) + 1)
    if not steps or sorted(steps) != list(range(len(steps))):
        first = ", ".join(sorted(source.tensors)[:3])
        raise CheckpointError(
            f"{source.path} has no keys blocks.0.flows.0.…, but {first}, …: it is of another public code"
        )
    network = "blocks.0.flows.0.coupling.net"
    hidden, half = source[f"{network}.0.weight"].shape[:2]
    affine = source[f"{network}.4.conv.weight"].shape[0] == 2 * half
    counts = [steps[level] for level in range(len(steps))]
    return GlowConfig(
        image_size=image_size, channels=half // 2, levels=len(counts), steps=counts, hidden=hidden,
        coupling="affine" if affine else "additive", prior="learned", edges="ones",
    )  # fmt: skip


def _step(source: _Source, theirs: str, half: int, config: GlowConfig) -> dict[str, Tensor]:
    """One step's state."""
    sign = torch.ones(2 * half, dtype=torch.float64)
    if f"{theirs}.actnorm.scale" in source or f"{theirs}.invconv.indices" not in source:
        if not bool(source[f"{theirs}.actnorm.initialized"]):
            raise CheckpointError(f"{source.path}: {theirs}.actnorm has no values yet: it was saved before training")
        scale, bias = source[f"{theirs}.actnorm.scale"], source[f"{theirs}.actnorm.loc"]
        if bool((scale == 0).any()):
            raise CheckpointError(f"{source.path}: {theirs}.actnorm.scale has a zero, so that step has no inverse")
        sign = scale.sign().flatten()
    else:  # network_config 1
        scale, bias = (make(1, 2 * half, 1, 1, dtype=torch.float64) for make in (torch.ones, torch.zeros))
    state = {"actnorm.bias": bias, "actnorm.log_scale": scale.abs().log(), "actnorm.initialized": torch.tensor(True)}
    state |= {f"linear.{name}": tensor for name, tensor in _linear(source, f"{theirs}.invconv", sign).items()}

    network = f"{theirs}.coupling.net"
    weight, bias = _zero_convolution(source, f"{network}.4")
    if config.coupling == "affine":
        weight, bias = (torch.cat([tensor[half:], tensor[:half]]) for tensor in (weight, bias))
    return state | {
        "coupling.network.first.weight": source[f"{network}.0.weight"],
        "coupling.network.first.bias": source[f"{network}.0.bias"],
        "coupling.network.middle.weight": source[f"{network}.2.weight"],
        "coupling.network.middle.bias": source[f"{network}.2.bias"] - 1,  # see CouplingNetwork, floor
        "coupling.network.last.weight": weight,
        "coupling.network.last.bias": bias,
    }


def _linear(source: _Source, theirs: str, sign: Tensor) -> dict[str, Tensor]:
    """P, L and U of the 1×1 convolution, W·diag(`sign`) = P L (U·diag(sign))."""
    channels = len(sign)
    if f"{theirs}.indices" in source:  # output i is input indices[i]
        indices = source[f"{theirs}.indices"].long()
        source.ignore(f"{theirs}.indices_inverse")
        permutation = torch.eye(channels, dtype=torch.float64)[indices]
        lower, upper = torch.eye(channels, dtype=torch.float64), torch.eye(channels, dtype=torch.float64)
    elif f"{theirs}.weight" in source:  # not decomposed (glow-pytorch's --no_lu)
        permutation, lower, upper = torch.linalg.lu(source[f"{theirs}.weight"].flatten(1))
    else:
        permutation, lower, upper = (source[f"{theirs}.{name}"] for name in ("w_p", "w_l", "w_u"))
        diagonal = source[f"{theirs}.s_sign"] * source[f"{theirs}.w_s"].exp()
        upper = upper.triu(1) + torch.diag(diagonal)
        source.ignore(*(f"{theirs}.{name}" for name in ("u_mask", "l_mask", "l_eye")))
    upper = upper * sign
    diagonal = upper.diagonal()
    if bool((diagonal == 0).any()):
        raise CheckpointError(f"{source.path}: the 1×1 convolution {theirs} is singular")
    return {
        "permutation": permutation,
        "lower": lower.tril(-1),
        "upper": upper.triu(1),
        "log_abs": diagonal.abs().log(),
        "sign": diagonal.sign(),
    }


def _zero_convolution(source: _Source, theirs: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution of h − 1, padded with zeros, that does what theirs does of h."""
    if f"{theirs}.linear.weight" in source:
        raise CheckpointError(f"{source.path}: {theirs} is conditional (a linear layer of labels); GLOW has none")
    factor = (3 * source[f"{theirs}.scale"]).exp().flatten()
    weight = source[f"{theirs}.conv.weight"] * factor[:, None, None, None]
    return weight, source[f"{theirs}.conv.bias"] * factor + weight.sum((1, 2, 3))


def _prior(source: _Source, level: int) -> dict[str, Tensor]:
    weight, bias = _zero_convolution(source, f"blocks.{level}.prior")
    return {"parameters_of.weight": weight, "parameters_of.bias": bias}


def _deepest_prior(source: _Source, level: int, shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """The convolution of a level of zeros, worked out: of −1 everywhere, as `_zero_convolution` takes h − 1."""
    weight, bias = _zero_convolution(source, f"blocks.{level}.prior")
    channels, height, width = shape
    minus_one = -torch.ones(1, channels, height, width, dtype=torch.float64)
    if weight.shape[:2] != (2 * channels, channels):
        raise CheckpointError(
            f"{source.path}: blocks.{level}.prior is {tuple(weight.shape)}, for {channels} channels expected "
            f"({2 * channels}, {channels}, 3, 3)"
        )
    mean, log_sigma = F.conv2d(minus_one, weight, bias, padding=1).chunk(2, dim=1)
    return {"mean": mean, "log_sigma": log_sigma}
