"""Tokens that right and wrong rollouts of one prompt share at their start or at their end."""

from __future__ import annotations

import torch
from torch import Tensor


def conflicts(labels: Tensor, mask: Tensor, advantages: Tensor, groups: Tensor) -> Tensor:
    """Where a token is shared between rollouts that rise and rollouts that fall, without a break from either end.

    A token is in conflict if, in its group, a rollout of positive advantage and one of negative advantage both have
    it at the same place, counted in scored tokens from the start (or, for the second run, from the end). A run is the
    conflicts of a rollout that reach without a gap from its first (last) scored token.

    Args:
        labels: [B,T] the scored ids. mask: [B,T]. advantages: [B]; rollouts of advantage 0 have no part.
        groups: [B], equal for the rollouts of one prompt.

    Returns:
        [B,T] bool: in the run from the start or in the run from the end.
    """
    sides = (labels, mask), (labels.flip(-1), mask.flip(-1))
    first, last = (_run(ids, kept, advantages, groups) for ids, kept in sides)
    return first | last.flip(-1)


def _run(ids: Tensor, mask: Tensor, advantages: Tensor, groups: Tensor) -> Tensor:
    taking_part = mask & (advantages != 0)[:, None]
    place = mask.cumsum(-1)
    where = torch.stack([groups[:, None].expand_as(ids), place, ids])[:, taking_part]  # [3, N]
    _, spot = where.unique(dim=1, return_inverse=True)
    rises = (advantages > 0)[:, None].expand_as(ids)[taking_part]
    seen = torch.zeros(2, len(spot), dtype=torch.bool, device=ids.device)
    seen[0, spot[rises]] = True
    seen[1, spot[~rises]] = True
    shared = torch.zeros_like(mask)
    shared[taking_part] = (seen[0] & seen[1])[spot]
    unbroken = torch.where(mask, shared, True).cumprod(-1).bool()
    return unbroken & shared
