"""Several processes that train as one: sums over all of them, and who writes.

Everything works without a process group, where all sums are the process's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from zerolabel.errors import UsageError


def start(device: torch.device) -> torch.device:
    """Join the group that `torchrun` describes in the environment, if there is one.

    Args:
        device: "cuda" is made the GPU of this process.

    Returns:
        The device of this process.

    Raises:
        UsageError: more processes than GPUs on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return device
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"Process {local} has no GPU of its own: {torch.cuda.device_count()} found. Start "
                f"torchrun with --nproc_per_node={torch.cuda.device_count()}."
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def stop() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 for the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(x: Tensor) -> Tensor:
    """Sum a tensor over all processes, out of place and without gradient."""
    if world() == 1:
        return x.detach()
    x = x.detach().clone()
    dist.all_reduce(x)
    return x


def total_with_gradient(x: Tensor) -> Tensor:
    """Sum a tensor over all processes; gradients reach the parts of every process."""
    return _Sum.apply(x) if world() > 1 else x  # type: ignore[no-untyped-call]


class _Sum(torch.autograd.Function):
    """The sum over all processes; what a part contributes to every process's loss comes back."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        """Sum the parts."""
        return total(x)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        """Sum the gradients of all processes."""
        return total(gradient)


def gather(x: Tensor) -> Tensor:
    """Concatenate (B, ...) of all processes in their order, without gradient."""
    if world() == 1:
        return x.detach()
    parts = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def average_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over all processes; one message for all of them."""
    if world() == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    flat /= world()
    sizes = [grad.numel() for grad in grads]
    for grad, mean in zip(grads, torch.split(flat, sizes), strict=True):
        grad.copy_(mean.view_as(grad))


def agree(value: float) -> float:
    """The value that process 0 has, e.g. of a clock."""
    if world() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    if dist.get_backend() == "nccl":
        shared = shared.float().cuda()
    dist.broadcast(shared, 0)
    return float(shared.item())
