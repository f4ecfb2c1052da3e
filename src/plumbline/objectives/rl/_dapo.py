"""DAPO: every token of the batch weighs the same, and the clip leaves more room above than below."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Evidence, NonNegative, Paper, Probability, claim, objective
from plumbline.core.scored import Scored
from plumbline.lab.bandits import practised
from plumbline.objectives.rl._group_advantages import group_advantages
from plumbline.objectives.rl.clipped import clipped, log_ratio


@objective(
    paper=Paper(
        "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", "Yu et al.", 2025, arxiv="2503.14476"
    ),
    says="The clipped policy loss as a mean over all tokens, with a higher bound for tokens that should rise.",
    differs=(
        "Dynamic sampling and the overlong reward belong to the rollout, not to the loss.",
        "dual_clip, cap and weights are off unless given, as in grpo.",
    ),
)
def dapo(
    x: Scored, advantages: Tensor, x_old: Scored | None = None, weights: Tensor | None = None, *,
    low: Probability = 0.2, high: NonNegative = 0.28, dual_clip: Annotated[float, Bound(gt=1)] | None = None,
    cap: Annotated[float, Bound(gt=1)] | None = None,
) -> Tensor:  # fmt: skip
    r"""Per-token loss.

    .. math:: \ell_{it} = -w_{it} \min\bigl(\rho_{it} A_{it},\ \mathrm{clip}(\rho_{it}, 1-low, 1+high)\,A_{it}\bigr),
              \qquad L = \frac{\sum_{it} \ell_{it}}{\sum_i |o_i|}

    Args:
        x: the trained model on the rollouts, logps [B, T]; the only argument that gets a gradient.
        advantages: [B] or [B, T].
        x_old: the policy that the rollouts were sampled from, logps [B, T]; None is x itself, detached.
        weights: [B, T] or [B, 1], a factor of the policy term, detached.
        low, high: the clip, 0.2 and 0.28. dual_clip, cap: as in ``grpo``.

    Returns:
        [B, T], 0 where masked; the trainer divides the sum by the scored tokens of the whole accumulated batch. Notes
        ``clip_low``, ``clip_high`` and ``ratio``.

    Raises:
        InputError: advantages, weights or x_old do not fit x [B, T].
    """
    change = log_ratio("dapo", x, x_old)
    return clipped("dapo", x, change, advantages, weights, low=low, high=high, dual_clip=dual_clip, cap=cap)


def _example(mask: Tensor) -> dict[str, Tensor]:
    return {"advantages": torch.tensor([1.0, -0.5, 0.8, -1.2])}


@claim(
    dapo,
    "A rare right token can rise by the factor 1 + high a round of rollouts, whatever its advantage: at 0.28 it takes "
    "fewer rounds than at PPO's 0.2.",
    cost="cpu:8s",
)
def rare_tokens_rise_sooner() -> Evidence:
    rare = torch.tensor([[0.01] + [0.99 / 9] * 9]).log()

    def rounds(high: float) -> list[int]:
        def loss(x: Scored, rewards: Tensor, old: Scored) -> Tensor:
            return dapo(x, group_advantages(rewards, torch.zeros(len(rewards)).long()), old, high=high)

        found = []
        for seed in range(3):
            path = practised(loss, _right, rare, steps=30, lr=0.5, samples=256, epochs=20, seed=seed)
            found.append(int((path.softmax(-1)[:, 0, 0] < 0.25).sum()))
        return found

    higher, even = rounds(0.28), rounds(0.2)
    return Evidence(
        all(a < b for a, b in zip(higher, even, strict=True)),
        {"rounds to 0.25, high 0.28": higher, "rounds to 0.25, high 0.2": even},
        control=min(even) > max(higher),
    )


def _right(ids: Tensor, g: torch.Generator) -> Tensor:
    return (ids[:, 0] == 0).float()
