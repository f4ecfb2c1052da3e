"""Advantage-weighted learning: imitate each token as much as its step was worth, and unlearn what did harm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.lab.bandits import rehearsed, three_steps
from plumbline.objectives.rl._step_advantages import step_advantages
from plumbline.objectives.rl.clipped import over_tokens, token_mean


@objective(
    paper=Paper(
        "RL on Incorrect Synthetic Data Scales the Efficiency of LLM Math Reasoning by Eight-Fold",
        "Setlur et al.",
        2024,
        arxiv="2406.14532",
    ),
    says="Likelihood of every token weighed by the advantage of its step.",
    differs=(
        "By default the advantage itself is the weight, as in the policy gradient that the paper's analysis rests on; "
        "weight= takes exp(A / tau) or any other function.",
        "No ratio and no clip: the data are fixed. For rollouts of the current policy use grpo with advantages [B, T].",
    ),
)
def advantage_weighted(
    x: Scored, advantages: Tensor, *, weight: Callable[[Tensor], Tensor] | None = None
) -> Tensor:  # fmt: skip
    r"""Per-sequence loss.

    .. math:: \ell = -\sum_t f(A_t)\,\log\pi_\theta(y_t \mid y_{<t})

    Args:
        x: the trained model on right and wrong solutions, logps [B, T].
        advantages: A, [B, T] from ``step_advantages`` (or [B], one for a whole solution); detached.
        weight: f, from [B, T] to [B, T], ``lambda a: (a / tau).exp()`` say; None is the advantage itself, under which
            harmful steps become less likely without bound: train briefly, or keep to exp.

    Returns:
        [B] nats. Notes ``credited``, the share of scored tokens with a weight other than 0.

    Raises:
        InputError: advantages fit neither [B] nor [B, T].
    """
    a = over_tokens("advantage_weighted", "advantages", advantages, x)
    factor = a if weight is None else weight(a)
    note(credited=token_mean(x, (factor != 0).float().expand_as(x.logps)))
    return -torch.where(x.mask, factor * x.logps, 0.0).sum(-1)


def _example(mask: Tensor) -> dict[str, Tensor]:
    return {"advantages": torch.linspace(-1, 1, mask.numel()).view_as(mask)}


@claim(
    advantage_weighted,
    "Per-step negatives unlearn a spurious step that imitation of right solutions, and solution-level negatives, keep.",
    cost="cpu:2s",
)
def unlearns_spurious_steps() -> Evidence:
    ids, values, right = three_steps()
    steps = step_advantages(torch.arange(1, 4).expand(200, 3), values)
    outcome = torch.where(right, 0.5, -0.5)
    losses: dict[str, tuple[Callable[[Scored], Tensor], Tensor]] = {
        "per step": (lambda x: advantage_weighted(x, steps), ids),
        "right solutions alone": (lambda x: -x.total(), ids[right]),
        "per solution": (lambda x: advantage_weighted(x, outcome), ids),
    }
    measured = {}
    for name, (loss, rows) in losses.items():
        p = rehearsed(loss, torch.zeros(3, 2), rows, steps=200, lr=0.5).softmax(-1)[:, 1]
        measured[name] = {"spurious": float(p[0]), "decisive": float(p[1])}
    ours = measured["per step"]
    holds = abs(ours["spurious"] - 0.5) < 1e-6 and ours["decisive"] > 0.95
    biased = measured["right solutions alone"]["spurious"] > 0.85 and measured["per solution"]["spurious"] > 0.85
    return Evidence(holds, measured, control=biased)
