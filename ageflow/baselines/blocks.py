"""The parts that the baselines share: translator, patch discriminator, label maps, wavelets, losses, C's features."""

from collections.abc import Sequence
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ageflow.device import constant
from ageflow.translation.classifier import Classifier

_HAAR = ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, -0.5, -0.5), (0.5, -0.5, 0.5, -0.5), (0.5, -0.5, -0.5, 0.5))  # LL, LH, HL, HH


def normalisation(kind: str | None, channels: int) -> nn.Module:
    """``batch``, ``instance`` (both with scale and shift) or None."""
    if kind == "batch":
        return nn.BatchNorm2d(channels, eps=1e-3)  # IPCGAN's; with 1e-5 its D collapses
    return nn.Identity() if kind is None else nn.InstanceNorm2d(channels, affine=True)


def channels_of(width: float, *papers: int) -> list[int]:
    """The papers' numbers of channels times `width`, at least 4."""
    return [max(4, round(width * channels)) for channels in papers]


class Residual(nn.Module):
    """x + c3(ReLU(c3(x))), each convolution with its normalisation."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()

        def layer() -> tuple[nn.Module, nn.Module]:
            return nn.Conv2d(channels, channels, 3, padding=1, bias=False), normalisation(norm, channels)

        self.layers = nn.Sequential(*layer(), nn.ReLU(), *layer())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Translator(nn.Module):
    """The generator of IPCGAN, PAG-GAN, Dual AcGAN and others: stem, two halvings, residual blocks, two doublings, heads.

    Arguments:
        channels: of the input, label maps included.
        base: channels of the stem; twice and four times as many further in.
        blocks: residual blocks.
        heads: channels of each output.
        norm: ``batch`` or ``instance``.
        stem: side of the first and the last kernel.
        kernel: side of the kernels that halve and double: 3 or 4.
        condition: numbers a face that are joined as maps after the halvings.
        transposed: double by transposed convolutions, which leave a grid in faces until it is unlearned; else by
            repeating pixels and a 3×3 convolution.
    """

    def __init__(
        self,
        channels: int,
        base: int,
        blocks: int,
        heads: Sequence[int] = (3,),
        norm: str = "instance",
        stem: int = 7,
        kernel: int = 3,
        condition: int = 0,
        transposed: bool = True,
    ) -> None:
        super().__init__()
        inner = 4 * base

        def layers(convolution: nn.Module) -> list[nn.Module]:
            return [convolution, normalisation(norm, convolution.out_channels), nn.ReLU()]

        def halve(n: int) -> list[nn.Module]:
            return layers(nn.Conv2d(n, 2 * n, kernel, 2, 1, bias=False))

        def double(n: int) -> list[nn.Module]:
            if not transposed:
                return [nn.Upsample(scale_factor=2), *layers(nn.Conv2d(n, n // 2, 3, padding=1, bias=False))]
            return layers(nn.ConvTranspose2d(n, n // 2, kernel, 2, 1, output_padding=kernel % 2, bias=False))

        first = layers(nn.Conv2d(channels, base, stem, padding=stem // 2, bias=False))
        self.down = nn.Sequential(*first, *halve(base), *halve(2 * base))
        join = layers(nn.Conv2d(inner + condition, inner, 3, padding=1, bias=False)) if condition else []
        self.inside = nn.Sequential(*join, *(Residual(inner, norm) for _ in range(blocks)))
        self.up = nn.Sequential(*double(inner), *double(2 * base))
        self.heads = nn.ModuleList(nn.Conv2d(base, out, stem, padding=stem // 2) for out in heads)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """[B, C, H, W] (and [B, condition]) → each head's [B, out, H, W], without an activation."""
        y = self.down(x)
        y = self.up(self.inside(y if condition is None else with_maps(y, condition)))[..., : x.shape[2], : x.shape[3]]
        return [head(y) for head in self.heads]


class PatchD(nn.Module):
    """A discriminator of patches: 4×4 convolutions, what it is told joined as maps after the first ones.

    Arguments:
        channels: of the input.
        widths: of each convolution.
        strides: of each.
        joined: channels that are joined after the first convolution, after the second, …
        norm: of all but the first: ``batch`` or None.
        slope: of the leaky ReLU.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        strides: Sequence[int],
        joined: Sequence[int] = (),
        norm: str | None = "batch",
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        sizes = [channels, *map(sum, zip_longest(widths, joined, fillvalue=0))]
        self.layers = nn.ModuleList()
        for number, (width, stride) in enumerate(zip(widths, strides, strict=True)):
            normed = normalisation(norm if number else None, width)
            convolution = nn.Conv2d(sizes[number], width, 4, stride, 1)
            self.layers.append(nn.Sequential(convolution, normed, nn.LeakyReLU(slope)))
        self.score = nn.Conv2d(sizes[-1], 1, 3, padding=1)

    def forward(self, x: Tensor, *joined: Tensor) -> tuple[Tensor, Tensor]:
        """Faces [B, C, S, S], and of each of `joined` values or maps → scores [B, 1, h, w] and the last features."""
        for layer, values in zip_longest(self.layers, joined):
            x = layer(x) if values is None else with_maps(layer(x), values)
        return self.score(x), x


def with_maps(x: Tensor, values: Tensor) -> Tensor:
    """x [B, C, H, W] with `values` as further maps, [B, n, H, W], or of numbers [B, n] constant ones: [B, C + n, H, W]."""
    maps = values if values.ndim == 4 else values[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, maps], dim=1)


def as_signed(images: Tensor) -> Tensor:
    """Faces, uint8 or float in [0, 1], as float in [−1, 1]."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else 2 * images.float() - 1


def one_hot(numbers: Tensor, count: int) -> Tensor:
    """int [N] → float [N, count]; −1 as zeros."""
    return F.one_hot(numbers + 1, count + 1)[:, 1:].float()


def haar(x: Tensor) -> Tensor:
    """One level of the Haar wavelet packet transform, orthonormal: [B, C, H, W] → [B, 4C, H/2, W/2].

    Of every 2×2 block a b / c d: LL = (a+b+c+d)/2, LH = (a+b−c−d)/2, HL = (a−b+c−d)/2, HH = (a−b−c+d)/2. Twice, it
    splits every band again.
    """
    blocks = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4))
    return torch.einsum("kj,bcjhw->bckhw", constant(_HAAR, x.device, x.dtype), blocks).flatten(1, 2)


def inverse_haar(bands: Tensor) -> Tensor:
    """`haar` undone: its matrix is its own inverse."""
    blocks = torch.einsum("kj,bcjhw->bckhw", constant(_HAAR, bands.device, bands.dtype), bands.unflatten(1, (-1, 4)))
    return F.pixel_shuffle(blocks.flatten(1, 2), 2)


def lsgan(scores: Tensor, aim: float) -> Tensor:
    """½·mean((D − aim)²)."""
    return 0.5 * (scores - aim).square().mean()


def total_variation(x: Tensor) -> Tensor:
    """½·mean(dy²) + ½·mean(dx²) of faces [B, C, H, W]."""
    return 0.5 * (x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean())


def feature_distance(made: Sequence[Tensor], own: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of two faces' features, as a share of their mean square; the mean over the first three stages.

    The papers' weights are for sums of other networks' features; as a share it has the same size for every C. The last
    stage tells age, so it is left out.
    """
    pairs = list(zip(made, own, strict=True))[:3]
    return sum((a - b).square().mean() / b.square().mean().clamp_min(1e-6) for a, b in pairs) / len(pairs)


def stages_of(c: Classifier, x: Tensor) -> list[Tensor]:
    """The maps of C's stem and of its first three stages, of faces [B, 3, S, S] in [−1, 1].

    The kit's classifier C of faces, fixed, stands in for the papers' AlexNet, VGG and LightCNN, which cannot be had
    offline. It predicts age group and attributes (gender), and is none of the judges; its first stages serve as perceptual
    and identity features. Gradients reach the faces, never C.
    """
    network = c.network
    stem = network.relu(network.bn1(network.conv1(((x + 1) / 2 - c.mean) / c.deviation)))
    first = network.layer1(network.maxpool(stem))
    second = network.layer2(first)
    return [stem, first, second, network.layer3(second)]


@torch.no_grad()
def stage_shapes(c: Classifier) -> list[list[int]]:
    """[channels, side] of each of `stages_of`."""
    empty = torch.zeros(1, 3, c.image_size, c.image_size, device=c.mean.device)
    return [[stage.shape[1], stage.shape[2]] for stage in stages_of(c, empty)]


def ages_of(c: Classifier, x: Tensor) -> Tensor:
    """C's logits [B, groups] of faces in [0, 1]."""
    return c.split_logits(c(x))[0]
