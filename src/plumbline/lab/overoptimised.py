"""Two proxies of a gold reward that stop being useful at known points: a bandit on which each can be overoptimised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.kernels.divergence import log_probs
from plumbline.kernels.seeds import generator

KL_WEIGHT, POINT = 0.15, 0.8
Mix = Callable[[Tensor, Tensor], Tensor]  # advantages of the KL [B] and of the rewards [B, 2] -> [B]


def arms(seed: int = 0, n: int = 400) -> Tensor:
    """Rewards [n, 2] of unit variance and correlation 0.3."""
    z = torch.randn(n, 2, generator=generator(seed, "overoptimised"), dtype=torch.float64)
    return torch.stack([z[:, 0], 0.3 * z[:, 0] + 0.91**0.5 * z[:, 1]], -1)


def gold(returns: Tensor) -> float:
    """What is wanted of mean returns [2]: both count, and beyond POINT harm three times their excess squared."""
    return float(returns.sum() - 3 * (returns - POINT).clamp(min=0).square().sum())


def trained_returns(
    rewards: Tensor, mix: Mix, *, update: Callable[[Tensor], None] = lambda r: None, steps: int = 1500, lr: float = 5.0,
    batch: int = 256, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Mean returns [2] of a softmax policy [n] after policy-gradient steps on its own samples, over the last third.

    ``update`` is shown each batch's returns [B, 2] before its advantages are mixed; the reference is uniform.
    """
    g, n = generator(seed, "trained_returns"), len(rewards)
    logits, late = torch.zeros(n, dtype=torch.float64), []
    for step in range(steps):
        logp = log_probs(logits)
        p = logp.exp()
        drawn = torch.multinomial(p, batch, replacement=True, generator=g)
        update(rewards[drawn])
        kl = -KL_WEIGHT * (logp[drawn] + torch.log(torch.tensor(float(n))))
        advantage = mix(kl - kl.mean(), rewards[drawn] - rewards[drawn].mean(0)) / batch
        slope = torch.zeros_like(p).index_add(0, drawn, advantage) - p * advantage.sum()
        logits = logits + lr * slope
        if step >= 2 * steps // 3:
            late.append(p @ rewards)
    return torch.stack(late).mean(0)
