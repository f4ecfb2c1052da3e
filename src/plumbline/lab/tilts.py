"""Tilted distributions over a finite set of outcomes: what KL-regularised training reaches when run to its end."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.divergence import log_probs


def divergence(p: Tensor, base: Tensor | None = None) -> Tensor:
    """KL(p || base) in nats for p [N]; ``base`` [N] is uniform when left out."""
    q = torch.full_like(p, 1 / len(p)) if base is None else base
    return torch.special.xlogy(p, p / q).sum()


def tilted(utility: Tensor, strength: float | Tensor, base: Tensor | None = None) -> Tensor:
    r""":math:`p_y \propto b_y\,e^{s u_y}`, [N]: the maximiser of :math:`\mathbb{E}_p u - KL(p\|b)/s`."""
    u = utility.double() * strength
    return log_probs(u if base is None else u + base.double().log()).exp()


def tilted_to(utility: Tensor, kl: float, base: Tensor | None = None) -> Tensor:
    """The tilt by ``utility`` [N] that lies ``kl`` nats from ``base``: utilities are compared at an equal budget."""
    low, high = 0.0, 1.0
    while divergence(tilted(utility, high, base), base) < kl:
        high *= 2
        if high > 1e9:
            raise refuse("tilted_to", "kl", "within reach of the best outcomes alone", kl, "lower it")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if divergence(tilted(utility, middle, base), base) < kl else (low, middle)
    return tilted(utility, low, base)
