"""Preferences over bags of words where a cue gives most of them away: does a loss learn what is meant, or the cue?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.scored import IGNORED, Scored
from plumbline.kernels.divergence import log_probs
from plumbline.kernels.seeds import generator

Perturb = Callable[..., tuple[Tensor, Tensor, Tensor]]
CUE, WORDS, LENGTH = 0, 60, 20  # words 1 .. WORDS-1 mean something


def pairs(n: int, share: float, worth: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Chosen and rejected texts, each [n, LENGTH]: Bradley-Terry on their words' worth; ``share`` carry the cue."""
    texts = torch.randint(1, WORDS, (2, n, LENGTH), generator=g)
    first = torch.rand(n, generator=g) < torch.sigmoid(worth[texts[0]].sum(-1) - worth[texts[1]].sum(-1))
    chosen = torch.where(first[:, None], texts[0], texts[1])
    rejected = torch.where(first[:, None], texts[1], texts[0])
    marked = torch.rand(n, generator=g) < share
    chosen[marked, 0] = CUE  # bags of words have no order
    return chosen, rejected


def accuracy_without_the_cue(
    loss: Callable[..., Tensor], perturb: Perturb, *, rate: float, informed: bool = True, steps: int = 25,
    lr: float = 3.0, seed: int = 0,
) -> float:  # fmt: skip
    """Share of held-out pairs without the cue that the trained unigram policy orders as their words' worth does.

    The policy is a table of logits, the reference is uniform, 256 pairs are trained on (80% with the cue), and the
    relevance of a word is 1, of the cue 0; or 1/2 for all, where not ``informed``.
    """
    g = generator(seed, "spurious")
    worth = torch.randn(WORDS, generator=g) * 0.5
    chosen, rejected = pairs(256, 0.8, worth, g)
    table = torch.zeros(WORDS, requires_grad=True)

    def score(logits: Tensor, ids: Tensor, labels: Tensor) -> Scored:
        return Scored(log_probs(logits)[ids], labels != IGNORED)

    for _ in range(steps):
        sides: list[Any] = []
        for ids in (chosen, rejected):
            relevance = (ids != CUE).float() if informed else torch.full(ids.shape, 0.5)
            how: dict[str, Any] = {"rate": rate, "change": _another, "generator": g}
            sides.append(perturb(ids, ids.clone(), relevance, torch.ones_like(ids), **how)[:2])
        policy = [score(table, *side) for side in sides]
        frozen = [score(torch.zeros(WORDS), *side) for side in sides]
        (slope,) = torch.autograd.grad(loss(*policy, *frozen).mean(), table)
        table = (table.detach() - lr * slope).requires_grad_()
    better, worse = pairs(2000, 0.0, worth * 100, g)
    return float((table.detach()[better].sum(-1) > table.detach()[worse].sum(-1)).float().mean())


def _another(ids: Tensor, g: torch.Generator | None) -> Tensor:
    return torch.randint(1, WORDS, ids.shape, generator=g)
