"""A GPU that no machine needs: what is on it has a device, a shape and a type, and no values (torch's fake tensors).

Real tensors stay real on the CPU, so all of the library runs as it is: readers, NumPy, checkpoints. What is sent to `cuda`
becomes a fake tensor. An operation that mixes the two, and one that asks for a value, are errors, as on a GPU the first is
one and the second waits. There is no backward pass: autograd asks for a real device.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ageflow.device import constant


class WaitsError(RuntimeError):
    """A step asked for something that the host waits for the device for, or left a tensor on the CPU."""


class _Watch(TorchDispatchMode):
    """Where it is strict, nothing goes from the device to the host, and to the device only what lies in pinned memory."""

    strict = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {leaf.device.type for leaf in given if leaf.ndim or function in _COPIES}
        devices |= {leaf.device.type for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        if self.strict and devices == {"cpu", "cuda"}:
            source = given[-1]
            free = (kwargs or {}).get("non_blocking") and getattr(source, "pinned", False)
            if function not in _COPIES or source.device.type == "cuda" or not free:
                raise WaitsError(f"{function}: {[(leaf.device.type, tuple(leaf.shape)) for leaf in given]}")
        return result


_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class FakeCuda(TorchFunctionMode):
    """The mode; `backward` stands in for the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.fake, self.watch = FakeTensorMode(allow_non_fake_inputs=True), _Watch()
        self.backward: Callable[[], None] = lambda: None

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is Tensor.backward:
            return self.backward()
        if function is Tensor.pin_memory:
            pinned = args[0].clone()
            pinned.pinned = True
            return pinned
        if any(map(_on_cuda, tree_leaves((args, kwargs)))):
            with self.fake, self.watch:
                return function(*args, **kwargs)
        return function(*args, **kwargs)

    def forbid_waiting(self) -> None:
        """From now on the host may not wait for the device."""
        self.watch.strict = True


def _on_cuda(value: object) -> bool:
    named = isinstance(value, torch.device | str) and str(value).startswith("cuda")
    return named or isinstance(value, FakeTensor)


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """While the block lasts, this machine has one GPU of 80 GB."""
    free = (80 * 2**30, 80 * 2**30)
    with patch("torch.cuda.device_count", lambda: 1), patch("torch.cuda.mem_get_info", lambda device: free):
        constant.cache_clear()
        with FakeCuda() as mode:
            yield mode
        constant.cache_clear()


def known_on_the_host(modules: nn.Module) -> nn.Module:
    """ActNorm's flag is read once, when a training begins."""
    for layer in modules.modules():
        if hasattr(layer, "_ready"):
            layer._ready = True
    return modules
