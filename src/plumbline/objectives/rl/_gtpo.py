"""GTPO: wrong rollouts do not push down what they share with right ones, and confused rollouts teach nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, Positive, claim, objective
from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.lab.bandits import format_and_answer
from plumbline.objectives.rl._group_advantages import group_advantages
from plumbline.objectives.rl._grpo import grpo
from plumbline.objectives.rl.clipped import row_mean, token_mean
from plumbline.objectives.rl.conflicts import conflicts


def _confident(entropy: Tensor) -> Tensor:
    """[B] mean entropies -> [B] bool, at most ln 2."""
    return entropy <= math.log(2)


@objective(
    paper=Paper(
        "GTPO: Trajectory-Based Policy Optimization in Large Language Models", "Simoni et al.", 2025, arxiv="2508.03772"
    ),
    says="GRPO without a ratio that spares tokens shared by right and wrong rollouts and drops confused rollouts.",
    differs=(
        "keep is a function: by default the paper's rule for a policy that starts out confident (mean entropy up to "
        "ln 2); pass keep=None for one that does not. The official code keeps entropies up to 0.7 in either case.",
        "A token in the runs from both ends counts once: its factor is 2, where the official code gets 4.",
        "Not taken from the official code: dividing a row by its number of conflict tokens, and a fixed pad id.",
        "The factor 2 and gamma 0.1 are the official code's.",
    ),
    needs=("batch",),
)
def gtpo(
    x: Scored, advantages: Tensor, groups: Tensor, *, shared_weight: Positive = 2.0, gamma: NonNegative = 0.1,
    keep: Callable[[Tensor], Tensor] | None = _confident,
) -> Tensor:  # fmt: skip
    r"""Per-rollout loss, on rollouts of the policy itself.

    .. math:: \ell_i = -\frac{k_i (A_i - \gamma H_i)}{|o_i|} \sum_t \lambda_{it}
              \frac{\pi_\theta(o_{it})}{\mathrm{sg}\,\pi_\theta(o_{it})},\qquad
              \lambda_{it} = \begin{cases} \text{shared\_weight} & \text{conflict},\ A_i > 0 \\
              0 & \text{conflict},\ A_i < 0 \\ 1 & \text{else}\end{cases}

    A conflict is a token that a better and a worse rollout of the group share at the same place, in a run from the
    first or to the last token (``objectives.rl.conflicts``).

    Args:
        x: the trained model on the rollouts, logps [B, T], with labels and entropy; only logps gets a gradient.
        advantages: A, [B], from ``group_advantages``. groups: [B]; a group lies whole within one micro-batch.
        shared_weight: factor of a conflict token in a better rollout; 1 only spares the worse ones.
        gamma: price of H_i, the mean entropy of a rollout's distributions in nats (detached).
        keep: k, from the mean entropies [B] to [B] bool; None keeps every rollout.

    Returns:
        [B], 0 for a dropped rollout. Notes ``conflicts`` (share of tokens), ``dropped`` (share of rows), ``entropy``.

    Raises:
        InputError: advantages or groups are not [B], or x has no labels or no entropy.
    """
    rows = (len(x.logps),)
    for argument, given in (("advantages", advantages), ("groups", groups)):
        if tuple(given.shape) != rows:
            raise refuse("gtpo", argument, f"of shape {list(rows)}", tuple(given.shape), "give one number a rollout")
    h = x.entropy().detach()
    entropy = row_mean(x, h)  # [B]
    kept = torch.ones_like(entropy, dtype=torch.bool) if keep is None else keep(entropy)
    wide = advantages.detach().to(x.logps.dtype)
    shared = conflicts(x.labels, x.mask, wide, groups)
    factor = torch.where(shared, torch.where(wide > 0, shared_weight, 0.0)[:, None], 1.0)  # lambda, [B, T]
    worth = torch.where(kept, wide - gamma * entropy, 0.0)
    now = (x.logps - x.logps.detach()).exp()  # 1, with the gradient of log pi
    note(conflicts=token_mean(x, shared.float()), dropped=(~kept).float(), entropy=token_mean(x, h))
    return -worth * row_mean(x, torch.where(x.mask, factor * now, 0.0))


def _example(mask: Tensor) -> dict[str, object]:
    return {
        "advantages": torch.tensor([1.0, -0.5, 0.8, -1.2]), "groups": torch.tensor([0, 0, 1, 1]), "keep": None,
    }  # fmt: skip


@claim(
    gtpo,
    "Where right and wrong answers begin with the same format, GRPO's wrong answers hold the format back; sparing the "
    "shared tokens lets it grow, and doubling them in right answers more so.",
    cost="cpu:6s",
)
def spares_the_format() -> Evidence:
    alone = torch.zeros(8, dtype=torch.long)
    losses: dict[str, Callable[[Scored, Tensor], Tensor]] = {
        "gtpo": lambda x, a: gtpo(x, a, alone, keep=None),
        "gtpo, factor 1": lambda x, a: gtpo(x, a, alone, keep=None, shared_weight=1.0),
        "grpo": grpo,
    }

    def formats(loss: Callable[[Scored, Tensor], Tensor]) -> list[float]:
        return [
            format_and_answer(lambda x, r, old: loss(x, group_advantages(r, alone)), samples=8, seed=seed)
            for seed in range(5)
        ]

    measured = {name: formats(loss) for name, loss in losses.items()}
    spared = min(measured["gtpo, factor 1"]) > max(measured["grpo"])
    return Evidence(min(measured["gtpo"]) > 0.75 and spared, measured, control=max(measured["grpo"]) < 0.65)
