"""Constrained RLHF: every reward is pushed to where it stops being useful and no further, by Lagrange multipliers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.kernels.notes import note
from plumbline.kernels.ranks import everywhere
from plumbline.lab.overoptimised import KL_WEIGHT, POINT, arms, gold, trained_returns
from plumbline.lab.tilts import tilted
from plumbline.objectives.preference.multipliers import Multipliers


@function(
    paper=Paper(
        "Confronting Reward Model Overoptimization with Constrained RLHF", "Moskovitz et al.", 2023, arxiv="2310.04373"
    ),
    says="Mix the advantages of several rewards and of the KL by multipliers that hold each reward at its threshold.",
    differs=(
        "Without squashing all k multipliers count; the official code drops the first of them by an index.",
        "Multipliers move once per batch of rollouts; the official code moves them on every minibatch.",
        "The threshold search caches what it judged; it runs scipy's simplex, on any score.",
    ),
)
def constrained_rlhf(
    kl_advantages: Tensor, advantages: Tensor, multipliers: Tensor, mask: Tensor | None = None, *,
    squash: Callable[[Tensor], Tensor] | None = torch.sigmoid, normalise: bool = True,
) -> Tensor:  # fmt: skip
    r"""Advantages for any policy-gradient loss (``grpo``, PPO's clip).

    .. math:: A = \Bigl(k - \sum_i \mu_i\Bigr) \hat A_{KL} + \sum_i \mu_i \hat A_i, \qquad \mu = squash(\lambda)

    or :math:`A = \hat A_{KL} + \sum_i \lambda_i \hat A_i` without squashing; :math:`\hat A` has mean 0 and standard
    deviation 1 over the batch. The multipliers are held and moved by ``multipliers.Multipliers``: call ``update`` once
    per batch of rollouts, pass ``.values`` here. Thresholds are the rewards' points of proxy use, read off curves of a
    gold score or found by ``multipliers.search_thresholds``.

    Args:
        kl_advantages: [B] or [B, T], of the reward -KL(policy || reference), per token the paper's.
        advantages: [B, k] or [B, T, k], of the k rewards.
        multipliers: [k], :math:`\lambda`.
        mask: of the shape of kl_advantages; elsewhere the result is 0 and the batch's statistics see nothing.
        squash: ``torch.sigmoid`` for "at least the threshold" (mu-PPO), ``torch.tanh`` for equality, which may push a
            reward down (xi-PPO), None for multipliers that are only kept at or above 0.
        normalise: off where the advantages are normalised already.

    Returns:
        [B] or [B, T] float32 or wider, without a gradient.

    Raises:
        InputError: shapes disagree.
    """
    wide = torch.promote_types(advantages.dtype, torch.float32)
    kl, each = kl_advantages.detach().to(wide), advantages.detach().to(wide)
    lam = multipliers.detach().to(each)
    if each.shape[:-1] != kl.shape or each.shape[-1:] != lam.shape:
        got = [tuple(kl.shape), tuple(each.shape), tuple(lam.shape)]
        raise refuse("constrained_rlhf", "advantages", "[..., k] for kl_advantages [...] and multipliers [k]", got,
                     "stack the rewards last")  # fmt: skip
    kept = torch.ones_like(kl, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    if kept.shape != kl.shape:
        raise refuse("constrained_rlhf", "mask", f"of shape {tuple(kl.shape)}", tuple(kept.shape), "one per advantage")
    if normalise:
        kl, each = _normalised(kl, kept), _normalised(each, kept)
    weights = lam if squash is None else squash(lam)
    share = 1.0 if squash is None else len(lam) - weights.sum()
    note(kl_weight=share, **{f"reward_weight_{i}": w for i, w in enumerate(weights)})
    return torch.where(kept, share * kl + (each * weights).sum(-1), 0.0)


def _normalised(x: Tensor, kept: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the kept entries of all processes, per last axis of [..., k]."""
    values = everywhere(x[kept])
    off = values - values.mean(0)
    spread = (off.square().sum(0) / max(1, len(values) - 1)).sqrt()
    return (x - values.mean(0)) / (spread + 1e-8)


@claim(
    constrained_rlhf,
    "Multipliers hold each proxy where it stops being useful, within 5% for four seeds of five; with any fixed weight "
    "the proxies pass that point and the gold reward falls.",
    cost="cpu:20s",
)
def stops_where_the_proxies_do() -> Evidence:
    held, scores, passed, spent = [], [], [], []
    for seed in range(5):
        rewards, state = arms(seed), Multipliers(torch.tensor([POINT, POINT]))

        def mix(kl: Tensor, each: Tensor, state: Multipliers = state) -> Tensor:
            return constrained_rlhf(kl, each, state.values)

        returns = trained_returns(rewards, mix, update=state.update, seed=seed)
        held.append(float((returns / POINT - 1).abs().max()))
        scores.append(gold(returns))
        # a fixed weight, trained to the end: the tilt that is its optimum
        fixed = {w: tilted(w * rewards.sum(-1), 1 / KL_WEIGHT) @ rewards for w in (0.25, 0.5, 1.0)}
        spent.append(max(gold(r) for r in fixed.values()))
        passed.append(min(float(r.min()) for r in fixed.values()))
    measured = {
        "largest miss of a threshold": held, "gold": scores, "gold, best fixed weight": spent,
        "smallest return, fixed weights": passed,
    }  # fmt: skip
    best = min(own - other for own, other in zip(scores, spent, strict=True))
    return Evidence(sum(miss < 0.05 for miss in held) >= 4 and best > 0.5, measured, control=min(passed) > 1.3 * POINT)
