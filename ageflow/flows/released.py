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
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from ageflow.checkpoint import CheckpointError, file_metadata, read_weights
from ageflow.downloads import not_downloaded
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
        CheckpointError: no such file, not a state dict, keys or shapes that do not fit, or values without an inverse;
            they are named. Or a file of the kit's with another network, or for faces of another side.

    Example: the authors' 256×256 GLOW, to fine-tune::

        glow = load_released("generator-1000000", image_size=256, memory="reversible")
    """
    path = Path(path).expanduser()
    asked = {"memory": memory, "precision": precision} | ({} if bits is None else {"bits": bits})
    if path.is_file() and "part" in file_metadata(path):  # what `ageflow.checkpoint.release` wrote
        weights = read_weights(path, "glow")
        if (side := weights.config["image_size"]) != image_size:
            raise CheckpointError(f"{path} is of faces of {side} pixels: image_size = {image_size}")
        config, state = GlowConfig(**weights.config | asked), weights.state
    else:
        source = _Source(path)
        config = _config(source, image_size, asked)
        state = _state(source, config)
    glow = Glow(config)
    try:
        glow.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit {config!r}: {error}") from None
    return glow


class _Source:
    """A state dict whose tensors, in float64 so that folding costs no digits, are taken one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if problem := not_downloaded(path):
            raise self.error(f"cannot be read: {problem}")
        try:
            if path.suffix == ".safetensors":
                tensors = load_file(path)
            else:
                tensors = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, AttributeError, RuntimeError, EOFError, ValueError, OSError) as error:
            raise self.error(
                f"cannot be read as a state dict ({_first_sentence(error)}): save it by "
                "torch.save(model.state_dict(), …); whole modules are pickles that may run code, and are refused"
            ) from None
        entries = tensors if isinstance(tensors, dict) else {}
        if not entries or not all(isinstance(entry, Tensor) for entry in entries.values()):
            inside = next((name for name, entry in entries.items() if isinstance(entry, dict)), None)
            held = ", ".join(map(str, [*entries][:8])) or f"a {type(tensors).__name__}"
            what = "save a model's state_dict()" if inside is None else f"save what {inside!r} holds"
            raise self.error(f"holds {held} instead of tensors by name: {what}, by torch.save")
        self.tensors = {name.removeprefix("module."): tensor.double() for name, tensor in entries.items()}

    def error(self, words: str) -> CheckpointError:
        """An error of this file."""
        return CheckpointError(f"{self.path} {words}")

    def take(self, name: str) -> Tensor:
        """A tensor, which is then no longer there: what is left at the end is unknown."""
        if name not in self.tensors:
            raise self.error(f"has no {name!r}: it is of another public code, or of other numbers of steps")
        return self.tensors.pop(name)


def _first_sentence(error: Exception) -> str:
    """Of torch's message, without its advice to unpickle whatever the file holds."""
    return re.split(r"\n|\. |; ", str(error))[0].replace("Weights only load failed", "it is no file of tensors alone")


def _config(source: _Source, image_size: int, asked: dict[str, Any]) -> GlowConfig:
    """The shape, from the keys and shapes."""
    places = {match.groups() for match in map(_STEP.match, source.tensors) if match}
    steps = Counter(level for level, _ in places)
    counts = [steps[str(level)] for level in range(len(steps))]
    first, last = (f"blocks.0.flows.0.coupling.net.{name}.weight" for name in ("0", "4.conv"))
    if not all(counts) or not {first, last} <= source.tensors.keys():
        found = ", ".join(sorted(source.tensors)[:3])
        raise source.error(f"has no keys blocks.0.flows.0.…, but {found}, …: it is of another public code")
    hidden, half = source.tensors[first].shape[:2]
    affine = len(source.tensors[last]) == 2 * half
    return GlowConfig(
        image_size=image_size, channels=half // 2, levels=len(counts), steps=counts, hidden=hidden,
        coupling="affine" if affine else "additive", prior="learned", edges="ones", **asked,
    )  # fmt: skip


def _state(source: _Source, config: GlowConfig) -> dict[str, Tensor]:
    """The whole state of `Glow(config)`."""
    state: dict[str, Tensor] = {}
    for level, steps in enumerate(config.steps_per_level):
        for step in range(steps):
            tensors = _step(source, f"blocks.{level}.flows.{step}", config.coupling == "affine")
            state |= {f"levels.{level}.transforms.{step}.{name}": tensor for name, tensor in tensors.items()}
        weight, bias = _zero_convolution(source, f"blocks.{level}.prior")
        prior = {"parameters_of.weight": weight, "parameters_of.bias": bias}
        if level == config.levels - 1:  # the convolution of zeros is a constant, worked out here
            side = config.image_size >> config.levels
            zeros = F.pad(weight.new_zeros(1, weight.shape[1], side, side), (1, 1, 1, 1), value=1.0)
            prior = dict(zip(("mean", "log_sigma"), F.conv2d(zeros, weight, bias).chunk(2, dim=1), strict=True))
        state |= {f"priors.{level}.{name}": tensor for name, tensor in prior.items()}
    if source.tensors:
        unknown = ", ".join(sorted(source.tensors)[:5])
        raise source.error(f"has {len(source.tensors)} keys that a GLOW of this shape does not have: {unknown}")
    if wrong := [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]:
        raise source.error(f"gives {wrong[0]} values that are not finite: its weights are not, or have no inverse")
    return state


def _step(source: _Source, theirs: str, affine: bool) -> dict[str, Tensor]:
    """One step's state."""
    network = f"{theirs}.coupling.net"
    names = {"first": f"{network}.0", "middle": f"{network}.2"}
    state = {
        f"coupling.network.{ours}.{kind}": source.take(f"{name}.{kind}")
        for ours, name in names.items()
        for kind in ("weight", "bias")
    }
    for kind, tensor in zip(("weight", "bias"), _zero_convolution(source, f"{network}.4"), strict=True):
        state[f"coupling.network.last.{kind}"] = tensor.roll(len(tensor) // 2, 0) if affine else tensor

    bias = torch.zeros(1, 2 * state["coupling.network.first.weight"].shape[1], 1, 1, dtype=torch.float64)
    scale = torch.ones_like(bias)
    if f"{theirs}.invconv.indices" not in source.tensors:  # the authors' network of fixed permutations has no ActNorm
        scale, bias = source.take(f"{theirs}.actnorm.scale"), source.take(f"{theirs}.actnorm.loc")
        if not bool(source.take(f"{theirs}.actnorm.initialized")):
            raise source.error(f"has no values in {theirs}.actnorm yet: it was saved before training")
    state |= {"actnorm.bias": bias, "actnorm.log_scale": scale.abs().log(), "actnorm.initialized": torch.tensor(True)}
    linear = _linear(source, f"{theirs}.invconv", scale.sign().flatten())
    return state | {f"linear.{name}": tensor for name, tensor in linear.items()}


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
    triangles = {"permutation": permutation, "lower": lower.tril(-1), "upper": upper.triu(1)}
    return triangles | {"log_abs": diagonal.abs().log(), "sign": diagonal.sign()}


def _zero_convolution(source: _Source, theirs: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a plain convolution padded with ones."""
    factor = (3 * source.take(f"{theirs}.scale")).exp().flatten()
    weight = source.take(f"{theirs}.conv.weight") * factor[:, None, None, None]
    return weight, source.take(f"{theirs}.conv.bias") * factor
