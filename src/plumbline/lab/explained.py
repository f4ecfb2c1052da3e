"""A short judgment and a long, noisy explanation that share a small hidden layer: what drowns in what."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import forked, generator

TOKENS, KINDS, WIDTH = 30, 8, 16


def judgment_accuracy(
    loss: Callable[[Scored, Tensor], Tensor], *, seed: int, rows: int = 400, steps: int = 300, lr: float = 1e-2
) -> float:
    """Test accuracy of the judgment after full-batch Adam on ``loss(x, segments)``, of which the token mean is taken.

    Inputs are 16 normal numbers. The judgment is the sign of a linear plus product rule; each of the 30 explanation
    tokens is the likeliest of 8 kinds under a linear rule of its own, replaced by a random kind 40% of the time. One
    hidden layer of 16 ReLU feeds two linear heads. ``segments`` [B,31] is 1 for the judgment, then 2.
    """
    g = generator(seed, "explained")
    inputs = torch.randn(rows + 2000, 16, generator=g)
    rule = torch.randn(16, generator=g)
    verdict = ((inputs @ rule + 2 * inputs[:, 0] * inputs[:, 1] + 2 * inputs[:, 2] * inputs[:, 3]) > 0).long()
    told = torch.einsum("nd,dtk->ntk", inputs[:rows], torch.randn(16, TOKENS, KINDS, generator=g)).argmax(-1)
    noisy = torch.rand(told.shape, generator=g) < 0.4
    told = torch.where(noisy, torch.randint(KINDS, told.shape, generator=g), told)
    labels = torch.cat([verdict[:rows, None], told], 1)
    segments = torch.full(labels.shape, 2)
    segments[:, 0] = 1
    with forked(seed, "explained", "network"):
        body = torch.nn.Sequential(torch.nn.Linear(16, WIDTH), torch.nn.ReLU())
        judge, explain = torch.nn.Linear(WIDTH, 2), torch.nn.Linear(WIDTH, TOKENS * KINDS)
    adam = torch.optim.Adam([p for part in (body, judge, explain) for p in part.parameters()], lr=lr)
    for _ in range(steps):
        h = body(inputs[:rows])
        first = torch.nn.functional.pad(judge(h)[:, None], (0, KINDS - 2), value=-torch.inf)  # [B,1,8]
        x = Scored.from_logits(torch.cat([first, explain(h).view(rows, TOKENS, KINDS)], 1), labels, shift=False)
        adam.zero_grad()
        (loss(x, segments).sum() / labels.numel()).backward()
        adam.step()
    with torch.no_grad():
        return float((judge(body(inputs[rows:])).argmax(-1) == verdict[rows:]).float().mean())
