"""Numbers of a batch that is spread over processes; of one process, the numbers themselves."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is."""
    return dist.get_rank() if world() > 1 else 0


@torch.no_grad()
def everywhere(x: Tensor) -> Tensor:
    """[n, ...] of this process -> [n of all, ...] in order of rank, detached. n may differ between processes."""
    x = x.detach()
    if world() == 1:
        return x
    sizes = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world())]
    dist.all_gather(sizes, torch.tensor([len(x)], device=x.device))
    most = int(max(sizes))
    padded = torch.cat([x, x.new_zeros((most - len(x), *x.shape[1:]))])
    parts = [torch.zeros_like(padded) for _ in sizes]
    dist.all_gather(parts, padded.contiguous())
    return torch.cat([part[: int(n)] for part, n in zip(parts, sizes, strict=True)])


@torch.no_grad()
def total(x: Tensor) -> Tensor:
    """The sum of a tensor over processes, detached."""
    x = x.detach().clone()
    if world() > 1:
        dist.all_reduce(x)
    return x
