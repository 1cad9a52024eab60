"""What a level of the flow keeps for the backward pass: everything, its inputs, or only its output.

``plain`` leaves it to autograd. ``checkpoint`` keeps each step's input and runs the step again in the backward
pass (`torch.utils.checkpoint`). ``reversible`` keeps a level's output alone and undoes each step from it
(Gomez et al. 2017): the coupling network's one evaluation serves both the inverse and its own gradient, so
memory does not grow with the number of steps. Backwards, from latents to faces, both keep each step's input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from ageflow.flows.step import FlowStep


def run_steps(steps: list[FlowStep], x: Tensor, memory: str) -> tuple[Tensor, Tensor]:
    """`steps` one after the other on x [B, C, H, W]: (y, log_det [B]).

    Arguments:
        steps: the level's flow steps.
        memory: ``plain``, ``checkpoint`` or ``reversible``; all three give the same numbers and gradients.
    """
    for step in steps:
        step.actnorm.check_initialized()
    if memory == "reversible" and torch.is_grad_enabled():
        parameters = [parameter for step in steps for parameter in step.parameters()]
        return _Reversible.apply(x, steps, *parameters)
    log_det = x.new_zeros(len(x))
    for step in steps:
        if memory == "checkpoint" and torch.is_grad_enabled():
            x, step_log_det = checkpoint(step, x, use_reentrant=False, preserve_rng_state=False)
        else:
            x, step_log_det = step(x)
        log_det = log_det + step_log_det
    return x, log_det


def undo_steps(steps: list[FlowStep], y: Tensor, memory: str) -> tuple[Tensor, Tensor]:
    """`steps` undone, the last first, on y [B, C, H, W]: (x, log_det [B]).

    Arguments:
        steps, memory: as for `run_steps`. A gradient through the decoder is of faces (`DecodedAge`), which are few at a
            time, so ``reversible`` does here as ``checkpoint`` does.
    """
    log_det = y.new_zeros(len(y))
    for step in reversed(steps):
        if memory != "plain" and torch.is_grad_enabled():
            y, step_log_det = checkpoint(step.inverse, y, use_reentrant=False, preserve_rng_state=False)
        else:
            y, step_log_det = step.inverse(y)
        log_det = log_det + step_log_det
    return y, log_det


class _Reversible(torch.autograd.Function):
    """A chain of steps that saves its output only.

    The parameters are inputs of the function, so that their gradients arrive as any other's do: hooks (DDP's),
    accumulation and clipping need not know.
    """

    @staticmethod
    def forward(ctx, x: Tensor, steps: list[FlowStep], *parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for step in steps:
            x, step_log_det = step(x)
            log_det = log_det + step_log_det
        ctx.steps = steps
        ctx.save_for_backward(x)
        return x, log_det

    @staticmethod
    @once_differentiable  # a gradient of a gradient is an error, as in the other modes
    def backward(ctx, grad_y: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        gradients: list[list[Tensor | None]] = []
        with torch.autocast(y.device.type, enabled=False):
            for step in reversed(ctx.steps):
                y, grad_y, of_parameters = _undo(step, y, grad_y, grad_log_det)
                gradients.append(of_parameters)
        return grad_y, None, *(gradient for of_step in reversed(gradients) for gradient in of_step)


def _undo(
    step: FlowStep, y: Tensor, grad_y: Tensor, grad_log_det: Tensor
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """One step back: its input, the gradient there, and its parameters' gradients in their order."""
    kept, moved_y = y.chunk(2, dim=1)
    kept = kept.detach().requires_grad_()
    with torch.enable_grad():
        drive = step.coupling.network(kept)  # the only evaluation: inverse, then gradient
    with torch.no_grad():
        moved_x, _ = step.coupling.move_back(moved_y, drive)
    moved_x.requires_grad_()
    network = [parameter for parameter in step.coupling.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        moved_again, log_det = step.coupling.move(moved_x, drive)
    grad_kept_y, grad_moved_y = grad_y.chunk(2, dim=1)
    outputs, their_gradients = [moved_again], [grad_moved_y]
    if log_det.requires_grad:
        outputs.append(log_det)
        their_gradients.append(grad_log_det)
    grad_kept, grad_moved, *grad_network = torch.autograd.grad(outputs, [kept, moved_x, *network], their_gradients)
    grad_middle = torch.cat([grad_kept_y + grad_kept, grad_moved], dim=1)

    middle = torch.cat([kept.detach(), moved_x.detach()], dim=1)
    with torch.no_grad():
        x = step.linear_inverse(middle)
    x.requires_grad_()
    linear = [p for p in (*step.actnorm.parameters(), *step.linear.parameters()) if p.requires_grad]
    with torch.enable_grad():
        weight, bias = step.folded()
        again = F.conv2d(x, weight, bias)
        log_det = step.linear_log_det(x)
    outputs, their_gradients = [again], [grad_middle]
    if log_det.requires_grad:  # it is of the parameters alone, which may be fixed
        outputs.append(log_det)
        their_gradients.append(grad_log_det)
    grad_x, *grad_linear = torch.autograd.grad(outputs, [x, *linear], their_gradients)
    found = dict(zip([id(parameter) for parameter in [*network, *linear]], [*grad_network, *grad_linear], strict=True))
    return x.detach(), grad_x, [found.get(id(parameter)) for parameter in step.parameters()]
