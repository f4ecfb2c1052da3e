"""From the size of a token's entropy change to its weight: pass one of these, or a function of your own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from plumbline.kernels.ranks import everywhere


def exponential(change: Tensor, mask: Tensor, *, least: float = 0.8, scale: float = 0.02) -> Tensor:
    r""":math:`e^{-k M}` with :math:`k = -\ln(\text{least}) / \max(M_{max}, \text{scale})`: 1 down to ``least``.

    Args:
        change: M >= 0, [B,T]. mask: [B,T]. scale: changes all below it are hardly weighed at all.

    Returns:
        [B,T]; what stands where the mask is False does not count.
    """
    largest = everywhere(torch.where(mask, change, 0.0).max()[None]).max()
    return (math.log(least) * change / largest.clamp(min=scale)).exp()


def linear(change: Tensor, mask: Tensor, *, least: float = 0.8, most: float = 1.2) -> Tensor:
    """``most`` for the smallest change of the batch down to ``least`` for the largest; their middle if all are equal.

    Args:
        change: M >= 0, [B,T]. mask: [B,T].

    Returns:
        [B,T]; what stands where the mask is False does not count.
    """
    largest = everywhere(torch.where(mask, change, -torch.inf).max()[None]).max()
    smallest = everywhere(torch.where(mask, change, torch.inf).min()[None]).min()
    share = (change - smallest) / (largest - smallest)
    return torch.where(largest > smallest, most - share * (most - least), (most + least) / 2)
