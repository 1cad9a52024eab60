"""A chain of transforms, and what it keeps for the backward pass: everything, its inputs, or only its output.

``plain`` leaves it to autograd. ``checkpoint`` keeps each step's input and runs the step again in the backward
pass (`torch.utils.checkpoint`). ``reversible`` keeps the chain's output alone and undoes each step from it
(Gomez et al. 2017): the coupling network's one evaluation serves both the inverse and its own gradient, so
memory does not grow with the number of steps. Backwards, from latents to faces, both keep each step's input: such a
gradient is of faces (`DecodedAge`), which are few at a time.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from ageflow.flows.step import FlowStep
from ageflow.flows.transform import Transform


class Chain(Transform):
    """Transforms one after the other; none at all is the identity.

    Arguments:
        transforms: in the order of `forward`; ``reversible`` takes flow steps only.
        memory: ``plain``, ``checkpoint`` or ``reversible``; all three give the same numbers and gradients.

    Example:
        >>> from ageflow.flows.squeeze import Squeeze
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
                y, grad_y, of_step = _undo(step, y, grad_y, grad_log_det)
                gradients |= of_step
        return grad_y, None, *map(gradients.get, ctx.chain.parameters())


def _undo(
    step: FlowStep, y: Tensor, grad_y: Tensor, grad_log_det: Tensor
) -> tuple[Tensor, Tensor, dict[nn.Parameter, Tensor]]:
    """One step back: its input, the gradient there, and those of its parameters that learn."""
    kept, moved_y = y.chunk(2, dim=1)
    kept = kept.detach().requires_grad_()
    with torch.enable_grad():
        drive = step.coupling.drive(kept)  # the only evaluation: inverse, then gradient
    with torch.no_grad():
        moved_x, _ = step.coupling.move_back(moved_y, drive)
    moved_x.requires_grad_()
    with torch.enable_grad():
        outputs = step.coupling.move(moved_x, drive)
    grad_kept_y, grad_moved_y = grad_y.chunk(2, dim=1)
    network = [parameter for parameter in step.coupling.parameters() if parameter.requires_grad]
    grad_kept, grad_moved, *of_network = _gradients(outputs, (grad_moved_y, grad_log_det), [kept, moved_x, *network])

    with torch.no_grad():
        x = step.unmix(torch.cat([kept, moved_x], dim=1))
    x.requires_grad_()
    with torch.enable_grad():
        outputs = step.mix(x)
    grad_mixed = torch.cat([grad_kept_y + grad_kept, grad_moved], dim=1)
    linear = [p for p in (*step.actnorm.parameters(), *step.linear.parameters()) if p.requires_grad]
    grad_x, *of_linear = _gradients(outputs, (grad_mixed, grad_log_det), [x, *linear])
    return x.detach(), grad_x, dict(zip([*network, *linear], [*of_network, *of_linear], strict=True))


def _gradients(outputs: Sequence[Tensor], of_outputs: Sequence[Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """`torch.autograd.grad` through the outputs that depend on anything that learns: a log-determinant may not."""
    pairs = [pair for pair in zip(outputs, of_outputs, strict=True) if pair[0].requires_grad]
    outputs, of_outputs = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, inputs, of_outputs)
