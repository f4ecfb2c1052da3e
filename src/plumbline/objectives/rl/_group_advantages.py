"""Group-relative advantages: the other answers to the same prompt are the baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.kernels.notes import note
from plumbline.kernels.seeds import generator
from plumbline.lab.bandits import draw, policy_gradients
from plumbline.objectives.rl.spreads import group_std


@function(
    paper=Paper(
        "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
        "Shao et al.",
        2024,
        arxiv="2402.03300",
    ),
    says="Rewards as advantages: minus the mean of the row's group, divided by the group's spread.",
    differs=(
        "eps is added to the spread: 1e-4 as in TRL (verl has 1e-6); the paper writes none.",
        "spread=None leaves the division out (Dr. GRPO), spread=batch_std divides by that of the whole batch.",
        "A group of one is refused; the paper's mean and spread say nothing of it.",
    ),
)
def group_advantages(
    rewards: Tensor, groups: Tensor, *, spread: Callable[[Tensor, Tensor], Tensor] | None = group_std,
    eps: NonNegative = 1e-4,
) -> Tensor:  # fmt: skip
    r"""One advantage a row.

    .. math:: A_i = \frac{R_i - \mathrm{mean}_{j \in g(i)} R_j}{\mathrm{spread}_i + \epsilon}

    A group whose rewards are all equal gets exactly 0: its rows teach nothing and are no error. They still count in
    a loss's normaliser. Their share is noted as ``zero_spread``.

    Args:
        rewards: [N] finite numbers (bool and whole numbers too).
        groups: [N] whole numbers, equal for the rollouts of one prompt. A group lies within one process.
        spread: ``group_std`` or ``batch_std`` of ``objectives.rl.spreads``, or a function of (rewards [N],
            groups [N]) -> [N]; None divides by nothing. ``batch_std`` is a collective call: every process makes it.
        eps: added to the spread.

    Returns:
        [N] float32 (float64 for float64 rewards), without gradient.

    Raises:
        InputError: shapes differ, a reward is not finite (its row is named), or a group has one row.
    """
    if rewards.dim() != 1 or rewards.shape != groups.shape:
        got = (tuple(rewards.shape), tuple(groups.shape))
        raise refuse(
            "group_advantages", "groups", "[N] beside rewards [N]", got, "give every reward its prompt's number"
        )
    r = rewards.detach().to(torch.promote_types(rewards.dtype, torch.float32))
    bad = (~r.isfinite()).nonzero()[:, 0].tolist()
    if bad:
        found = f"{float(r[bad[0]])} in row {bad[0]}"
        raise refuse("group_advantages", "rewards", "finite", found, "mend the reward function or drop the row's group")
    names, index, count = groups.unique(return_inverse=True, return_counts=True)
    if bool((count == 1).any()):
        alone = f"one row in group {int(names[count == 1][0])}"
        raise refuse("group_advantages", "groups", "of two rows or more", alone, "sample several rollouts a prompt")
    empty = r.new_zeros(len(names))
    mean = (empty.index_add(0, index, r) / count)[index]
    most, least = (empty.scatter_reduce(0, index, r, how, include_self=False)[index] for how in ("amax", "amin"))
    advantages = r - mean if spread is None else (r - mean) / (spread(r, groups) + eps)
    note(zero_spread=(most == least).float())
    return torch.where(most == least, 0.0, advantages)


@claim(
    group_advantages,
    "The group's own mean is the baseline a critic would have learned: with prompts of unequal difficulty the policy "
    "gradient keeps its direction and loses most of its variance.",
    cost="cpu:2s",
)
def needs_no_critic() -> Evidence:
    g, prompts, size, arms = generator(0, "group_advantages"), 16, 8, 5
    means = torch.rand(arms, generator=g)  # of the arms, the same for every prompt
    offsets = 10 * torch.rand(prompts, generator=g)  # difficulty, of no interest to the policy
    table = torch.zeros(1, arms)
    groups = torch.arange(prompts).repeat_interleave(size)

    def estimates(advantages: Callable[[Tensor], Tensor]) -> Tensor:
        found = []
        for _ in range(300):
            ids = draw(table, prompts * size, g)
            found.append(policy_gradients(table, ids, advantages(means[ids[:, 0]] + offsets[groups])))
        return torch.stack(found)

    exact = (table.softmax(-1) * (means - means.mean())).flatten()
    measured: dict[str, Any] = {}
    baselines = {"group": lambda r: group_advantages(r, groups, spread=None), "batch": lambda r: r - r.mean()}
    for name, baseline in baselines.items():
        found = estimates(baseline)
        measured[f"noise, {name} mean"] = float(found.var(0).sum().sqrt() / exact.norm())
        measured[f"cosine, {name} mean"] = float(torch.cosine_similarity(found.mean(0), exact, dim=0))
    holds = measured["noise, group mean"] < 1 and measured["cosine, group mean"] > 0.99
    return Evidence(holds, measured, control=measured["noise, batch mean"] > 5 * measured["noise, group mean"])
