"""A policy over a handful of one-token answers, tuned on every pair of them: where a preference loss comes to rest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.scored import Scored


def answers(table: Tensor) -> Scored:
    """K answers of one token each under logits [K]: ``Scored`` of [K,1], row k scoring answer k."""
    k = len(table)
    return Scored.from_logits(table.expand(k, 1, k), torch.arange(k)[:, None], shift=False)


def rows(scored: Scored, which: Tensor) -> Scored:
    """Some rows of a batch, keeping the graph."""
    return Scored(scored.logps[which], scored.mask[which])


def preferred_optimum(
    loss: Callable[[Scored, Scored, Scored, Scored], Tensor], rewards: Tensor, ref: Tensor, *, steps: int = 2000,
    lr: float = 0.1,
) -> Tensor:  # fmt: skip
    r"""The distribution [K] that minimises a pairwise loss (chosen, rejected, chosen_ref, rejected_ref) -> [B].

    Each ordered pair weighs :math:`\sigma(r_w - r_l)`, its frequency under Bradley-Terry; float64 Adam.

    Args:
        rewards: [K]. ref: [K], logits of the reference. lr: Adam's, decayed to 0 along a cosine.
    """
    first, second = torch.combinations(torch.arange(len(rewards))).unbind(-1)
    chosen, rejected = torch.cat([first, second]), torch.cat([second, first])
    weight = torch.sigmoid(rewards[chosen] - rewards[rejected])
    table = ref.clone().requires_grad_()
    frozen = answers(ref)
    adam = torch.optim.Adam([table], lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        x = answers(table)
        value = loss(rows(x, chosen), rows(x, rejected), rows(frozen, chosen), rows(frozen, rejected))
        adam.zero_grad()
        (weight * value).sum().backward()
        adam.step()
        decay.step()
    return table.detach().softmax(-1)
