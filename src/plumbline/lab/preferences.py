"""Policies over a handful of answers, tuned by a preference loss: where it comes to rest, exactly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.scored import Scored
from plumbline.kernels.divergence import log_probs
from plumbline.kernels.seeds import generator

PairLoss = Callable[[Scored, Scored, Scored, Scored], Tensor]  # chosen, rejected, chosen_ref, rejected_ref -> [B]
JudgedLoss = Callable[[Scored, Scored, Tensor], Tensor]  # x, x_ref, desirable [B] -> [B]


def answers(table: Tensor) -> Scored:
    """K answers of one token each under logits [K]: ``Scored`` of [K,1], row k scoring answer k."""
    k = len(table)
    return Scored.from_logits(table.expand(k, 1, k), torch.arange(k)[:, None], shift=False)


def rows(scored: Scored, which: Tensor) -> Scored:
    """Some rows of a batch, keeping the graph."""
    return Scored(scored.logps[which], scored.mask[which])


def settled(value: Callable[[Tensor], Tensor], start: Tensor, *, steps: int = 2000, lr: float = 0.1) -> Tensor:
    """The table that minimises ``value(table)`` from ``start`` on: Adam, its rate decayed to 0 along a cosine."""
    table = start.clone().requires_grad_()
    adam = torch.optim.Adam([table], lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        adam.zero_grad()
        value(table).backward()
        adam.step()
        decay.step()
    return table.detach()


def preferred_optimum(loss: PairLoss, rewards: Tensor, ref: Tensor, *, steps: int = 2000, lr: float = 0.1) -> Tensor:
    r"""The distribution [K] that minimises a pairwise loss (chosen, rejected, chosen_ref, rejected_ref) -> [B].

    Each ordered pair weighs :math:`\sigma(r_w - r_l)`, its frequency under Bradley-Terry.

    Args:
        rewards: [K]. ref: [K], logits of the reference. lr: Adam's, decayed to 0 along a cosine.
    """
    first, second = torch.combinations(torch.arange(len(rewards))).unbind(-1)
    chosen, rejected = torch.cat([first, second]), torch.cat([second, first])
    weight = torch.sigmoid(rewards[chosen] - rewards[rejected])
    frozen = answers(ref)

    def value(table: Tensor) -> Tensor:
        x = answers(table)
        return (weight * loss(rows(x, chosen), rows(x, rejected), rows(frozen, chosen), rows(frozen, rejected))).sum()

    return settled(value, ref, steps=steps, lr=lr).softmax(-1)


def judged_optimum(
    loss: JudgedLoss, prompts: Tensor, found: Tensor, desirable: Tensor, ref: Tensor, *, weight: Tensor | None = None,
    steps: int = 500, lr: float = 0.1,
) -> Tensor:  # fmt: skip
    """The log-policy [P,K] of P prompts and K answers that minimises a loss on N judged answers.

    Args:
        prompts, found: [N], which prompt and which answer. desirable: [N] bool. ref: [P,K], logits of the reference.
        weight: [N], how often each row is seen; once when left out.
    """
    frozen = Scored(log_probs(ref)[prompts, found][:, None])
    often = torch.ones(len(found)) if weight is None else weight

    def value(table: Tensor) -> Tensor:
        x = Scored(log_probs(table)[prompts, found][:, None])
        return (often * loss(x, frozen, desirable)).sum() / often.sum()

    return log_probs(settled(value, ref, steps=steps, lr=lr))


GOOD, BAD, STOP = range(3)


def quality_and_length(
    loss: PairLoss, *, length_bias: float = 0.1, steps: int = 100, lr: float = 0.05, pairs: int = 256, seed: int = 0
) -> tuple[float, float]:
    r"""What training on pairs does to a policy that draws good words, bad words and stops, each with one probability.

    The judge's reward is :math:`3\,\frac{n_{good} - n_{bad}}{n_{good} + n_{bad}} + b\,|y|` with b the length bias;
    answers are drawn from the reference (as many good as bad words, 10 tokens long on average, cut at 24).

    Returns:
        After ``steps`` steps of Adam: the share of good among its words (0.5 before), and its mean answer length
        :math:`1 / p_{stop}` in tokens (10 before), both exact.
    """
    g = generator(seed, "quality_and_length")
    ref = torch.tensor([0.0, 0.0, -1.5])
    ids = torch.multinomial(ref.softmax(-1).expand(2 * pairs, 3), 24, replacement=True, generator=g)
    ended = (ids == STOP).cumsum(1) - (ids == STOP).long()
    mask = ended == 0  # up to and including the first stop
    good, bad = ((ids == GOOD) & mask).sum(1), ((ids == BAD) & mask).sum(1)
    reward = 3 * (good - bad) / (good + bad).clamp(min=1) + length_bias * mask.sum(1)
    first, second = torch.arange(2 * pairs).view(2, pairs)
    wins = torch.rand(pairs, generator=g) < torch.sigmoid(reward[first] - reward[second])
    w, other = torch.where(wins, first, second), torch.where(wins, second, first)

    def on(table: Tensor, which: Tensor) -> Scored:
        return Scored(log_probs(table)[ids[which]], mask[which])

    def value(table: Tensor) -> Tensor:
        return loss(on(table, w), on(table, other), on(ref, w), on(ref, other)).mean()

    p = settled(value, ref, steps=steps, lr=lr).softmax(-1)
    return float(p[GOOD] / (p[GOOD] + p[BAD])), float(1 / p[STOP])
