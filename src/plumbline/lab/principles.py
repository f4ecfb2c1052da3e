"""Two constitutions and a handful of one-token answers: how much of an answer tells which constitution it obeyed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.scored import Scored
from plumbline.kernels import divergence
from plumbline.kernels.seeds import generator


def mutual_information(table: Tensor) -> float:
    """Between a uniform constitution and the answer, for logits [C, K]; nats."""
    p = divergence.log_probs(table).exp()
    mixed = p.mean(0)
    return float(divergence.entropy(mixed.log()) - divergence.entropy(table).mean())


def information_gained(
    loss: Callable[[Scored], Tensor], *, steps: int = 200, lr: float = 0.5, answers: int = 12, seed: int = 0
) -> tuple[float, float]:
    """Mutual information gained by training on the policy's own answers, and the mean entropy left, in nats.

    Two constitutions start with slightly different tastes (logits [2, K] of standard deviation 0.5). A step samples
    one answer under each, scores both under both (4 rows of one token), and takes a plain gradient step on the mean.
    """
    g = generator(seed, "principles")
    table = (torch.randn(2, answers, generator=g) * 0.5).double().requires_grad_()
    before = mutual_information(table.detach())
    under, wrote = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    for _ in range(steps):
        y = torch.multinomial(table.detach().softmax(-1), 1, generator=g)[:, 0]  # [2]
        x = Scored.from_logits(table[under][:, None], y[wrote][:, None], shift=False)
        (slope,) = torch.autograd.grad(loss(x).mean(), table)
        table = (table.detach() - lr * slope).requires_grad_()
    left = table.detach()
    return mutual_information(left) - before, float(divergence.entropy(left).mean())
