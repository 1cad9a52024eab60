"""What `test_reversible` starts in two processes: one backward pass under DDP, each on half of a batch."""

import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

from ageflow.flows.glow import Glow
from tests.flows.test_reversible import glow_with


class LogLikelihood(torch.nn.Module):
    """DDP wraps a module's forward; ours is the loss."""

    def __init__(self, glow: Glow) -> None:
        super().__init__()
        self.glow = glow

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.glow.log_prob(x).mean()


def main(path: str) -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    for memory in ("checkpoint", "reversible"):
        glow = glow_with(memory, "affine", "learned", dtype=torch.float64)
        wrapped = DistributedDataParallel(LogLikelihood(glow))
        for number in range(2):  # accumulated: only the second backward pass reduces
            x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(number)).double() - 0.5
            with wrapped.no_sync() if number == 0 else torch.enable_grad():
                wrapped(x.chunk(world)[rank]).backward()
        gradients = {name: parameter.grad.contiguous() for name, parameter in glow.named_parameters()}
        save_file(gradients, f"{path}-{memory}-{rank}.safetensors")
        del wrapped
    # Neither ends while the other still talks to it: once in hundreds of runs a process was aborted as it ended.
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
