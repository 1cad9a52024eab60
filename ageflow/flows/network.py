"""The network inside a coupling: three convolutions, with a backward pass of its own.

Nearly all of GLOW's arithmetic is here. What autograd would do with the same five calls costs a tenth more on a
CPU (notebook 10): it masks gradients into new memory, sums biases inside the convolution's backward pass, and a
3×3 convolution from or to a handful of channels leaves most of a vector register idle.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# A 3×3 convolution with at most so many channels·9 on its narrow side is computed as a 1×1 convolution and shifts.
_NARROW = 64


def zero_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3×3 convolution that starts at zero, so that what it feeds starts as the identity."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)
    return convolution


class CouplingNetwork(nn.Module):
    """conv 3×3 → ReLU → conv 1×1 → ReLU → zero-initialised conv 3×3 (GLOW, B).

    Arguments:
        inputs, outputs: channels in and out.
        hidden: channels between.
        precision: arithmetic inside: ``fp32`` (the parameters' own) or ``bf16``, which rounds only inside this
            network; what comes out is of the input's dtype. As the same input gives the same output in either
            direction, the coupling stays exactly invertible.
        floor: the second rectifier is max(h, floor). With −1 the last convolution, which pads with zeros, does
            what one that pads h + 1 with ones does: the layout of the public GLOWs (`flows.released`).

    Raises:
        RuntimeError: a gradient of a gradient is asked for; `torch.autograd` names the function.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, precision: str = "fp32", floor: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.middle = nn.Conv2d(hidden, hidden, 1)
        self.last = zero_convolution(hidden, outputs)
        for convolution in (self.first, self.middle):
            nn.init.normal_(convolution.weight, std=0.05)
            nn.init.zeros_(convolution.bias)
        nn.init.constant_(self.middle.bias, floor)  # so that the second rectifier lets half of its inputs pass
        self.precision = precision
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] → [B, outputs, H, W]."""
        inside = torch.bfloat16 if self.precision == "bf16" else x.dtype
        # A caller's own autocast must not change what the inverse recomputes.
        with torch.autocast(x.device.type, enabled=False):
            return _Network.apply(
                x,
                *(self.first.weight, self.first.bias, self.middle.weight, self.middle.bias),
                *(self.last.weight, self.last.bias, inside, self.floor),
            )


class _Network(torch.autograd.Function):
    """The three convolutions; saves the network's input and the two rectified activations."""

    @staticmethod
    def forward(ctx, x: Tensor, w1, b1, w2, b2, w3, b3, inside: torch.dtype, floor: float) -> Tensor:
        dtype = x.dtype
        x, w1, b1, w2, b2, w3, b3 = (tensor.to(inside) for tensor in (x, w1, b1, w2, b2, w3, b3))
        h1 = F.conv2d(x, w1, b1, padding=1).clamp_(min=0)
        h2 = F.conv2d(h1, w2, b2).clamp_(min=floor)
        if _is_narrow(w3.shape[0]):
            y = _scatter(F.conv2d(h2, _taps_out(w3)), w3.shape[0]) + b3[:, None, None]
        else:
            y = F.conv2d(h2, w3, b3, padding=1)
        ctx.save_for_backward(x, h1, h2, w1, w2, w3)
        ctx.floor = floor
        return y.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, h1, h2, w1, w2, w3 = ctx.saved_tensors
        # A trained GLOW, decoded with gradients for its latents, needs none of its parameters'.
        of_x, of_w1, of_b1, of_w2, of_b2, of_w3, of_b3 = ctx.needs_input_grad[:7]

        g = grad_y.to(x.dtype)
        gb3 = grad_y.sum((0, 2, 3)) if of_b3 else None
        if _is_narrow(w3.shape[0]):
            # Σ over taps, the other way round: gather the 3×3 neighbourhood of the gradient, then 1×1.
            g, gw3 = _convolution_gradients(_gather(g), h2, _taps_out(w3), True, of_w3)
            gw3 = _from_taps_out(gw3, w3.shape) if of_w3 else None
        else:
            g, gw3 = _convolution_gradients(g, h2, w3, True, of_w3)

        g = _mask(g, h2, ctx.floor)
        gb2 = g.sum((0, 2, 3)) if of_b2 else None
        g, gw2 = _convolution_gradients(g, h1, w2, True, of_w2)

        g = _mask(g, h1, 0.0)
        gb1 = g.sum((0, 2, 3)) if of_b1 else None
        narrow = of_x and _is_narrow(w1.shape[1])
        gx, gw1 = _convolution_gradients(g, x, w1, of_x and not narrow, of_w1)
        if narrow:
            gx = _scatter(F.conv2d(g, _taps_in(w1)), w1.shape[1])
        results = (None if grad is None else grad.to(grad_y.dtype) for grad in (gx, gw1, gb1, gw2, gb2, gw3, gb3))
        return *results, None, None


def _is_narrow(channels: int) -> bool:
    return 9 * channels <= _NARROW


def _convolution_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, of_x: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients at a convolution's input and weight, each where it is wanted."""
    # Not torch.nn.grad's: those ask the same operator with made-up tensors, which hide that all is channels_last.
    one, padding, wanted = [1, 1], [weight.shape[2] // 2] * 2, [of_x, of_weight, False]
    return torch.ops.aten.convolution_backward(grad, x, weight, None, one, padding, one, False, [0, 0], 1, wanted)[:2]


def _mask(grad: Tensor, rectified: Tensor, floor: float) -> Tensor:
    """The gradient behind max(h, floor), written over `grad`."""
    return torch.ops.aten.threshold_backward.grad_input(grad, rectified, floor, grad_input=grad)


# A 3×3 convolution to few channels, as one 1×1 convolution to 9 times as many and nine shifted sums. Tap (i, j) is
# the shift by (1 − i, 1 − j), so the weights are turned by 180°.


def _taps_out(weight: Tensor) -> Tensor:
    """[O, I, 3, 3] → [9·O, I, 1, 1]."""
    outputs, inputs = weight.shape[:2]
    return weight.flip(2, 3).permute(2, 3, 0, 1).reshape(9 * outputs, inputs, 1, 1)


def _from_taps_out(weight: Tensor, shape: torch.Size) -> Tensor:
    """`_taps_out` undone."""
    return weight.reshape(3, 3, shape[0], shape[1]).permute(2, 3, 0, 1).flip(2, 3)


def _taps_in(weight: Tensor) -> Tensor:
    """[O, I, 3, 3] → [9·I, O, 1, 1], for the gradient at the input."""
    outputs, inputs = weight.shape[:2]
    return weight.permute(2, 3, 1, 0).reshape(9 * inputs, outputs, 1, 1)


def _scatter(x: Tensor, channels: int) -> Tensor:
    """[B, 9·C, H, W] → [B, C, H, W]: tap (i, j) of pixel p is added at p + (i − 1, j − 1)."""
    batch, _, height, width = x.shape
    taps = x.permute(0, 2, 3, 1).reshape(batch, height, width, 9, channels)
    dtype = torch.promote_types(x.dtype, torch.float32)
    padded = x.new_zeros(batch, height + 2, width + 2, channels, dtype=dtype)
    for tap in range(9):
        i, j = divmod(tap, 3)
        padded[:, i : i + height, j : j + width] += taps[:, :, :, tap]
    return padded[:, 1:-1, 1:-1].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _gather(x: Tensor) -> Tensor:
    """[B, C, H, W] → [B, 9·C, H, W]: the transpose of `_scatter`."""
    _, _, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    taps = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.cat(taps, dim=-1).permute(0, 3, 1, 2)
