r"""What a sample's place among the losses of its batch is worth: the strategies of loss reweighting.

Each takes places h [N] in :math:`[-\delta, \delta]` (the lowest loss of the batch at :math:`-\delta`) and returns
scores [N], of which the weights are a softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor


def linupper(h: Tensor, delta: float) -> Tensor:
    r""":math:`\min(h + \delta, \delta)`: low losses fade, everything above the middle counts alike."""
    return (h + delta).clamp(max=delta)


def quadratic(h: Tensor, delta: float) -> Tensor:
    r""":math:`1 - h^2 / \delta^2`: the middle counts most (``mid`` in the official code)."""
    return 1 - h.square() / delta**2


def extremes(h: Tensor, delta: float) -> Tensor:
    """``|h|``: the lowest and the highest losses count most."""
    return h.abs()


def uniform(h: Tensor, delta: float) -> Tensor:
    """0: every sample counts alike."""
    return torch.zeros_like(h)
