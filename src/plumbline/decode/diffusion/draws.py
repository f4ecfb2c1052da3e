"""Ways to draw from a categorical distribution in batches, and the temperature that a biased one amounts to."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.errors import refuse

Draw = Callable[[Tensor, int], Tensor]  # (probs [V], n) -> ids [n]

UNIFORM_BITS = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24, torch.float64: 53}
"""Bits of ``torch.rand`` by dtype: its largest value is 1 - 2^-bits."""


def check_probs(where: str, probs: Tensor) -> Tensor:
    """Probabilities [..., V] in float64, normalised."""
    wide = probs.detach().double()
    if probs.dim() == 0 or bool((wide < 0).any() | wide.isnan().any() | (wide.sum(-1) <= 0).any()):
        raise refuse(where, "probs", "probabilities [..., V], none below 0, one above", probs, "pass softmax(logits)")
    return wide / wide.sum(-1, keepdim=True)


def categorical(probs: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Ids [...] of ``probs`` [..., V] by inversion with one float64 uniform each: the batched form of ``Chooser``'s."""
    total = check_probs("categorical", probs).cumsum(-1)
    u = torch.rand(*probs.shape[:-1], 1, generator=generator, dtype=torch.float64, device=probs.device)
    ids = torch.searchsorted(total, u * total[..., -1:], right=True)[..., 0]
    last = probs.shape[-1] - 1 - (probs > 0).flip(-1).to(torch.uint8).argmax(-1)
    return torch.minimum(ids, last)


def inverse(generator: torch.Generator | None = None) -> Draw:
    """:func:`categorical` as a sampler to audit."""

    def draw(probs: Tensor, n: int) -> Tensor:
        total = check_probs("inverse", probs).cumsum(-1)
        u = torch.rand(n, generator=generator, dtype=torch.float64, device=probs.device)
        return torch.searchsorted(total, u * total[-1], right=True).clamp(max=int(torch.nonzero(probs)[-1]))

    return draw


def gumbel_max(dtype: torch.dtype, generator: torch.Generator | None = None, block: int = 1 << 22) -> Draw:
    r"""The Gumbel-max trick as it is usually written, :math:`\arg\max_i \log p_i - \log(-\log u_i)`, u in ``dtype``."""

    def draw(probs: Tensor, n: int) -> Tensor:
        logp, rows = probs.double().log(), max(1, block // len(probs))

        def some(m: int) -> Tensor:
            u = torch.rand(m, len(probs), generator=generator, dtype=dtype, device=probs.device).double()
            return (logp - torch.log(-torch.log(u))).argmax(-1)

        return torch.cat([some(min(rows, n - i)) for i in range(0, n, rows)])

    return draw


def exponential_race(dtype: torch.dtype, generator: torch.Generator | None = None, block: int = 1 << 22) -> Draw:
    r"""The same draw as a race, :math:`\arg\max_i p_i / E_i` with :math:`E_i = -\log u_i`, u in ``dtype``."""

    def draw(probs: Tensor, n: int) -> Tensor:
        p, rows = probs.double(), max(1, block // len(probs))

        def some(m: int) -> Tensor:
            u = torch.rand(m, len(p), generator=generator, dtype=dtype, device=p.device).double()
            return (p / -torch.log(u)).argmax(-1)

        return torch.cat([some(min(rows, n - i)) for i in range(0, n, rows)])

    return draw


def effective_temperature(biased: Tensor, probs: Tensor) -> float:
    r"""The temperature that ``biased`` [V] amounts to: :math:`\arg\min_T KL(p' \| softmax(\log p / T))`.

    The minimum matches the mean of log p: both sides expect the same. Below 1 the draws are sharper than ``probs``.
    Tokens of probability 0 are left out. ``math.inf`` or 0.0 where no finite temperature reaches the mean.
    """
    p, found = check_probs("effective_temperature", probs), check_probs("effective_temperature", biased)
    logp, wanted = p[p > 0].log(), found[p > 0]
    mean = float(wanted @ logp / wanted.sum())

    def at(beta: float) -> float:
        return float(torch.softmax(beta * logp, 0) @ logp)

    if mean <= at(0.0):
        return math.inf
    low, high = 0.0, 1.0
    while at(high) < mean:
        low, high = high, 2 * high
        if high > 1e12:
            return 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) < mean else (low, middle)
    return 2 / (low + high)


def mask_dominated(vocab: int = 300, mask: float = 0.999) -> Tensor:
    """A step of masked diffusion [vocab + 1]: a mask that stays, and a Zipf law over tokens."""
    tail = 1 / torch.arange(1, vocab + 1, dtype=torch.float64)
    return torch.cat([torch.tensor([mask], dtype=torch.float64), (1 - mask) * tail / tail.sum()])
