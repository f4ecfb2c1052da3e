"""Dr. GRPO: GRPO without the two divisions that favour short right answers and long wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, NonNegative, Paper, Probability, claim, objective
from plumbline.core.scored import Scored
from plumbline.objectives.rl._grpo import grpo
from plumbline.objectives.rl.clipped import clipped, log_ratio


@objective(
    paper=Paper("Understanding R1-Zero-Like Training: A Critical Perspective", "Liu et al.", 2025, arxiv="2503.20783"),
    says="The clipped policy loss summed over a rollout's tokens and divided by one constant for every rollout.",
    differs=(
        "Advantages without the division by the group's spread are group_advantages(..., spread=None).",
        "dual_clip, cap and weights are off unless given, as in grpo.",
    ),
)
def dr_grpo(
    x: Scored, advantages: Tensor, x_old: Scored | None = None, weights: Tensor | None = None, *, max_tokens: Count,
    low: Probability = 0.2, high: NonNegative = 0.2, dual_clip: Annotated[float, Bound(gt=1)] | None = None,
    cap: Annotated[float, Bound(gt=1)] | None = None,
) -> Tensor:  # fmt: skip
    r"""Per-rollout loss: the sum over its tokens, divided by the most tokens that a rollout may have.

    .. math:: \ell_i = -\frac{1}{C_{max}}\sum_t w_{it}\,
              \min\bigl(\rho_{it} A_{it},\ \mathrm{clip}(\rho_{it}, 1-low, 1+high)\,A_{it}\bigr)

    Args:
        x: the trained model on the rollouts, logps [B, T]; the only argument that gets a gradient.
        advantages: [B] or [B, T].
        x_old: the policy that the rollouts were sampled from, logps [B, T]; None is x itself, detached.
        weights: [B, T] or [B, 1], a factor of the policy term, detached.
        max_tokens: C_max, the generation limit of the rollouts; the same for the whole training.
        low, high: the clip, 0.2 each. dual_clip, cap: as in ``grpo``.

    Returns:
        [B]. Notes ``clip_low``, ``clip_high`` and ``ratio``.

    Raises:
        InputError: advantages, weights or x_old do not fit x [B, T].
    """
    change = log_ratio("dr_grpo", x, x_old)
    tokens = clipped("dr_grpo", x, change, advantages, weights, low=low, high=high, dual_clip=dual_clip, cap=cap)
    return tokens.sum(-1) / max_tokens


def _example(mask: Tensor) -> dict[str, Tensor | int]:
    return {"advantages": torch.tensor([1.0, -0.5, 0.8, -1.2]), "max_tokens": 8}


@claim(
    dr_grpo,
    "A token of a rollout of 2 weighs as much as one of a rollout of 8, so that being long does not soften a wrong "
    "answer; under GRPO it weighs four times as much.",
    cost="cpu:1s",
)
def length_changes_no_weight() -> Evidence:
    mask = torch.arange(8) < torch.tensor([[2], [8]])

    def share(loss: Callable[[Scored, Tensor], Tensor]) -> float:
        logps = torch.full((2, 8), -1.0, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(Scored(logps, mask), torch.tensor([-1.0, -1.0])).sum(), logps)
        return float(slope[0, 0] / slope[1, 0])

    ours, theirs = share(lambda x, a: dr_grpo(x, a, max_tokens=8)), share(grpo)
    return Evidence(ours == 1, {"short over long": ours, "short over long, grpo": theirs}, control=theirs == 4)
