"""One step of the flow, chains of steps, and what a chain keeps for the backward pass.

``plain`` leaves it to autograd. ``checkpoint`` keeps each step's input and runs the step again in the backward
pass (`torch.utils.checkpoint`). ``reversible`` keeps the chain's output alone and undoes each step from it
(Gomez et al. 2017): the coupling network's one evaluation serves both the inverse and its own gradient, so
memory does not grow with the number of steps. Backwards, from latents to faces, both keep each step's input: such a
gradient is of faces (`DecodedAge`), which are few at a time.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from ageflow.device import exact_products
from ageflow.flows.actnorm import ActNorm
from ageflow.flows.coupling import AdditiveCoupling, AffineCoupling
from ageflow.flows.linear import InvertibleConv1x1
from ageflow.flows.transform import Transform, over_pixels

_FACES_AT_A_TIME = 8  # while ActNorm is initialised
COUPLINGS = {"additive": AdditiveCoupling, "affine": AffineCoupling}


class FlowStep(Transform):
    """ActNorm → invertible 1×1 convolution → coupling (Fig. 2a).

    ActNorm and the convolution are folded into one 1×1 convolution with a bias, exactly and with their own
    gradients: W((x + b)·s) = (W·diag(s)) x + W(s·b).

    Arguments:
        channels: number of channels C.
        hidden: hidden channels of the coupling network.
        coupling: ``additive`` or ``affine``.
        precision: arithmetic of the coupling network, ``fp32`` or ``bf16``.
        generator: source of the random rotation.
        edges: ``zeros`` or ``ones``, see `GlowConfig`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        coupling: str = "additive",
        precision: str = "fp32",
        generator: torch.Generator | None = None,
        edges: str = "zeros",
    ) -> None:
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.linear = InvertibleConv1x1(channels, generator)
        self.coupling = COUPLINGS[coupling](channels, hidden, precision, edges)
        self._kept: dict[str, tuple[list, tuple[Tensor, Tensor]]] = {}

    def folded(self) -> tuple[Tensor, Tensor]:
        """ActNorm and the 1×1 convolution as one: (weight [C, C, 1, 1], bias [C])."""
        weight = self.linear.weight()
        scale = self.actnorm.log_scale.flatten().exp()
        return (weight * scale)[:, :, None, None], weight @ (scale * self.actnorm.bias.flatten())

    def folded_inverse(self) -> tuple[Tensor, Tensor]:
        """What undoes `folded`: (weight [C, C, 1, 1], bias [C])."""
        inverse_scale = (-self.actnorm.log_scale.flatten()).exp()
        weight = inverse_scale[:, None] * self.linear.inverse_weight()
        return weight[:, :, None, None], -self.actnorm.bias.flatten()

    def _cached(self, compute: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """`compute`'s result, kept while encoding and decoding (evaluation mode, no gradients), dropped in training."""
        weights = (*self.actnorm.parameters(), *self.linear.parameters())
        # A flow made under inference_mode counts no versions.
        if self.training or torch.is_grad_enabled() or any(weight.is_inference() for weight in weights):
            self._kept.clear()
            return compute()
        # A changed weight has another version, a moved or converted one another address.
        state, name = [(weight.data_ptr(), weight._version) for weight in weights], compute.__name__
        if name not in self._kept or self._kept[name][0] != state:
            self._kept[name] = (state, compute())
        return self._kept[name][1]

    def mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """ActNorm and the 1×1 convolution of x [B, C, H, W], with their log-determinant [B]."""
        with exact_products(x.device):
            return F.conv2d(x, *self._cached(self.folded)), self._mix_log_det(x)

    def unmix(self, y: Tensor) -> Tensor:
        """`mix` undone, [B, C, H, W]."""
        with exact_products(y.device):
            return F.conv2d(y, *self._cached(self.folded_inverse))

    def _mix_log_det(self, x: Tensor) -> Tensor:
        return over_pixels(self.actnorm.log_scale.sum() + self.linear.log_abs.sum(), x)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.actnorm.check_initialized()
        mixed, log_det = self.mix(x)
        y, of_coupling = self.coupling(mixed)
        return y, of_coupling + log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        self.actnorm.check_initialized()
        mixed, log_det = self.coupling.inverse(y)
        return self.unmix(mixed), log_det - self._mix_log_det(y)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        self.actnorm.initialize(x)
        # All of x decides ActNorm's values; the coupling network needs few faces at a time, and 13 GB for 128 of the
        # paper's size at once.
        return torch.cat([self(some)[0] for some in x.split(_FACES_AT_A_TIME)])

    @torch.no_grad()
    def backward(
        self, y: Tensor, grad_y: Tensor, grad_log_det: Tensor
    ) -> tuple[Tensor, Tensor, dict[nn.Parameter, Tensor]]:
        """The step undone from its output: its input, the gradient there, and those of its parameters that learn."""
        kept, moved_y = y.chunk(2, dim=1)
        kept = kept.detach().requires_grad_()
        with torch.enable_grad():
            drive = self.coupling.drive(kept)  # the only evaluation: inverse, then gradient
        moved_x = self.coupling.move_back(moved_y, *drive)[0].requires_grad_()
        with torch.enable_grad():
            outputs = self.coupling.move(moved_x, *drive)
        grad_kept, grad_moved = grad_y.chunk(2, dim=1)
        network = [p for p in self.coupling.parameters() if p.requires_grad]
        through, grad_moved, *of_network = _gradients(outputs, (grad_moved, grad_log_det), [kept, moved_x, *network])

        x = self.unmix(torch.cat([kept, moved_x], dim=1)).requires_grad_()
        with torch.enable_grad():
            outputs = self.mix(x)
        grad_mixed = torch.cat([grad_kept + through, grad_moved], dim=1)
        linear = [p for p in (*self.actnorm.parameters(), *self.linear.parameters()) if p.requires_grad]
        grad_x, *of_linear = _gradients(outputs, (grad_mixed, grad_log_det), [x, *linear])
        return x.detach(), grad_x, dict(zip([*network, *linear], [*of_network, *of_linear], strict=True))


def _gradients(outputs: Sequence[Tensor], of_outputs: Sequence[Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """`torch.autograd.grad` through the outputs that depend on anything that learns: a log-determinant may not."""
    pairs = [pair for pair in zip(outputs, of_outputs, strict=True) if pair[0].requires_grad]
    outputs, of_outputs = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, inputs, of_outputs)


class Chain(Transform):
    """Transforms one after the other; none at all is the identity.

    Arguments:
        transforms: in the order of `forward`; ``reversible`` takes flow steps only.
        memory: ``plain``, ``checkpoint`` or ``reversible``; all three give the same numbers and gradients.

    Example:
        >>> from ageflow.flows.transform import Squeeze
        >>> y, log_det = Chain(Squeeze(), Squeeze())(torch.zeros(2, 3, 8, 8))
        >>> y.shape, log_det.tolist()
        (torch.Size([2, 48, 2, 2]), [0.0, 0.0])
    """

    def __init__(self, *transforms: Transform, memory: str = "plain") -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        self.memory = memory

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.memory == "reversible" and torch.is_grad_enabled():
            return _Reversible.apply(x, self, *self.parameters())
        return self.run(self.transforms, x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.run((transform.inverse for transform in reversed(self.transforms)), y)

    def run(self, functions: Iterable[Callable], x: Tensor) -> tuple[Tensor, Tensor]:
        """`functions` one after the other on x [B, C, H, W], and the sum of their log-determinants [B]."""
        only_inputs = self.memory != "plain" and torch.is_grad_enabled()
        log_det = x.new_zeros(len(x))
        for function in functions:
            if only_inputs:
                x, step = checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x, step = function(x)
            log_det = log_det + step
        return x, log_det

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform.initialize(x)
        return x


class _Reversible(torch.autograd.Function):
    """A chain of steps that saves its output only.

    The parameters are inputs of the function, so that their gradients arrive as any other's do: hooks (DDP's),
    accumulation and clipping need not know.
    """

    @staticmethod
    def forward(ctx, x: Tensor, chain: Chain, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = chain.run(chain.transforms, x)
        ctx.chain = chain
        ctx.save_for_backward(y)
        return y, log_det

    @staticmethod
    @once_differentiable  # a gradient of a gradient is an error, as in the other modes
    def backward(ctx, grad_y: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        gradients: dict[nn.Parameter, Tensor] = {}
        with torch.autocast(y.device.type, enabled=False):
            for step in reversed(ctx.chain.transforms):
                y, grad_y, of_step = step.backward(y, grad_y, grad_log_det)
                gradients |= of_step
        return grad_y, None, *map(gradients.get, ctx.chain.parameters())
