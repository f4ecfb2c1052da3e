"""Group Relative Policy Optimization: PPO's clipped ratio, averaged within each rollout, without a critic."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Evidence, NonNegative, Paper, Probability, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.lab.bandits import draw, rehearsed, scored
from plumbline.objectives.rl.clipped import clipped, log_ratio, row_mean


@objective(
    paper=Paper(
        "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
        "Shao et al.",
        2024,
        arxiv="2402.03300",
    ),
    says="Raise tokens of rollouts better than their group's mean and lower the rest, within a clipped ratio.",
    differs=(
        "The KL term is left to the caller: add beta times reference_kl.",
        "Advantages come from the data (group_advantages makes the paper's); they may differ from token to token.",
        "dual_clip (Ye et al., 2020), cap (TRL's delta) and weights (engine mismatch) are off unless given.",
        "A log-ratio counts as at most 20, so that float32 stays finite.",
    ),
)
def grpo(
    x: Scored, advantages: Tensor, x_old: Scored | None = None, weights: Tensor | None = None, *,
    low: Probability = 0.2, high: NonNegative = 0.2, dual_clip: Annotated[float, Bound(gt=1)] | None = None,
    cap: Annotated[float, Bound(gt=1)] | None = None,
) -> Tensor:  # fmt: skip
    r"""Per-rollout loss: the mean over its tokens, so a token of a short rollout weighs more.

    .. math:: \ell_i = -\frac{1}{|o_i|}\sum_t w_{it}\,
              \min\bigl(\rho_{it} A_{it},\ \mathrm{clip}(\rho_{it}, 1-low, 1+high)\,A_{it}\bigr),\qquad
              \rho_{it} = \frac{\pi_\theta(o_{it})}{\pi_{old}(o_{it})}

    Args:
        x: the trained model on the rollouts, logps [B, T]; the only argument that gets a gradient.
        advantages: [B] or [B, T].
        x_old: the policy that the rollouts were sampled from, logps [B, T]; None is x itself, detached.
        weights: [B, T] or [B, 1], a factor of the policy term, detached.
        low, high: the clip, 0.2 each. dual_clip: bound of the loss of a negative advantage, in multiples of it.
        cap: largest ratio that an unclipped term may have.

    Returns:
        [B]. Notes ``clip_low``, ``clip_high`` and ``ratio``.

    Raises:
        InputError: advantages, weights or x_old do not fit x [B, T].
    """
    change = log_ratio("grpo", x, x_old)
    tokens = clipped("grpo", x, change, advantages, weights, low=low, high=high, dual_clip=dual_clip, cap=cap)
    return row_mean(x, tokens)


def _example(mask: Tensor) -> dict[str, Tensor]:
    return {"advantages": torch.tensor([1.0, -0.5, 0.8, -1.2])}


@claim(
    grpo,
    "Step after step on the same rollouts, the policy comes to rest near the clip bound; without the clip it runs off.",
    cost="cpu:3s",
)
def stays_near_the_rollouts() -> Evidence:
    g = generator(0, "grpo")
    table = torch.zeros(1, 8)
    ids = draw(table, 32, g)
    advantages, old = torch.randn(32, generator=g), scored(table, ids)

    def furthest(low: float, high: float) -> float:
        after = rehearsed(lambda x: grpo(x, advantages, old, low=low, high=high), table, ids, steps=300, lr=0.5)
        return float((scored(after, ids).logps - old.logps).exp().max())

    within, free = furthest(0.2, 0.2), furthest(1.0, 1e6)
    return Evidence(within < 1.5, {"largest ratio": within, "largest ratio, no clip": free}, control=free > 3)
