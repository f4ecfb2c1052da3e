"""The best fixed action in hindsight: what ``regret_loss`` compares a policy with. Losses [N,T,A] -> [N]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.errors import refuse

Comparator = Callable[[Tensor], Tensor]


def simplex(losses: Tensor) -> Tensor:
    r"""Of all distributions over A actions: :math:`\min_a \sum_t l_{ta}`."""
    return losses.sum(-2).amin(-1)


def ball(radius: float = 1.0) -> Comparator:
    r"""Of all points in a Euclidean ball around 0: :math:`-R\,\lVert\sum_t l_t\rVert_2`."""
    if not radius > 0:
        raise refuse("ball", "radius", "a number > 0", radius, "pass radius=1.0")
    return lambda losses: -radius * torch.linalg.vector_norm(losses.sum(-2), dim=-1)
