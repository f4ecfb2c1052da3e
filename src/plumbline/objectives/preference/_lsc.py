"""Log-sigmoid-centred rewards: the log-probability of being better than a reference answer, which may be summed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.kernels.seeds import generator
from plumbline.lab.tilts import tilted_to
from plumbline.objectives.preference.base_rewards import base_quantile


@function(
    paper=Paper(
        "Transforming and Combining Rewards for Aligning Large Language Models", "Wang et al.", 2024, arxiv="2402.00742"
    ),
    says="Turn Bradley-Terry rewards into log-probabilities of being good, whose sum is that of all being good.",
    differs=(
        "The reference reward is an argument: base_quantile makes the paper's from samples of the base policy (its "
        "0.85 is from memory, unverified), and a canned answer's own reward will do as well.",
    ),
)
def lsc(rewards: Tensor, reference: Tensor) -> Tensor:
    r"""The log-sigmoid-centred transform, and the conjunction of several.

    .. math:: u_k = \log\sigma(r_k - r_k^{ref}) = \log P(\text{answer beats the reference}), \qquad u = \sum_k u_k

    Bounded above by 0, so nothing is clipped; its slope :math:`\sigma(r^{ref} - r)` fades once an answer is good. It
    means what it says only of rewards trained by Bradley-Terry. Each reward model needs its own reference, and no
    weights are then needed between models of different scale. Follow it with ordinary KL-regularised training on u.

    Args:
        rewards: [B], or [B, K] of K reward models.
        reference: the same shape, or one that broadcasts to it: the reward of the answer to beat.

    Returns:
        [B] float32 nats, at most 0.

    Raises:
        InputError: rewards have another shape, or the reference does not broadcast to it.
    """
    if rewards.dim() not in (1, 2):
        raise refuse("lsc", "rewards", "of shape [B] or [B,K]", tuple(rewards.shape), "one column per reward model")
    wide = rewards.to(torch.promote_types(rewards.dtype, torch.float32))
    try:
        centred = torch.broadcast_to(wide - reference, rewards.shape)
    except RuntimeError as error:
        got = tuple(reference.shape)
        do = "give every reward its own reference"
        raise refuse("lsc", "reference", f"of a shape that broadcasts to {tuple(rewards.shape)}", got, do) from error
    u = F.logsigmoid(centred)
    return u if u.dim() == 1 else u.sum(-1)


@claim(
    lsc,
    "At an equal KL budget, more of the policy tuned on its sum is good by both rewards than on the sum of rewards.",
    cost="cpu:4s",
)
def sums_to_a_conjunction() -> Evidence:
    measured: dict[str, float] = {}
    won = missed = 0
    for seed in range(5):
        z = torch.randn(4000, 2, generator=generator(seed, "lsc"), dtype=torch.float64)
        rewards = torch.stack([z[:, 0], -0.5 * z[:, 0] + 0.75**0.5 * z[:, 1]], -1) * 2  # correlation -1/2
        both, reference = (rewards > rewards.median(0).values).all(-1), base_quantile(rewards[None])
        utilities = {
            "lsc": lsc(rewards, reference),
            "linear": rewards.sum(-1),
            "transform of the sum": lsc(rewards.sum(-1), reference.sum()),
        }
        for kl in (0.5, 1.0, 2.0):
            mass = {name: float(tilted_to(u, kl)[both].sum()) for name, u in utilities.items()}
            gain = {name: value - mass["linear"] for name, value in mass.items()}
            won += gain["lsc"] > 0.03
            missed += gain["transform of the sum"] < gain["lsc"] / 3
            for name, value in mass.items():
                key = f"good by both, {name}, {kl:g} nats"
                measured[key] = measured.get(key, 0.0) + value / 5
    return Evidence(won == 15, measured | {"cells won of 15": won}, control=missed == 15)
