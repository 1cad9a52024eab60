"""Numbers as precise on a GPU as on the CPU."""

import torch


def no_tf32() -> None:
    """Let a GPU's convolutions multiply in 32 bits, for all of the process.

    PyTorch lets them round to TF32's ten bits unless told otherwise. A 1×1 convolution and its inverse then do not undo
    each other, `reversible` finds other gradients than `plain`, and faces are found elsewhere. For all of the process and
    not around each call: a backward pass runs outside of these.
    """
    torch.backends.cudnn.allow_tf32 = False
