"""STEER: tokens whose update would move the policy's entropy most are updated less."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Evidence, NonNegative, Paper, Probability, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.divergence import entropy
from plumbline.kernels.notes import note, noted
from plumbline.kernels.seeds import generator
from plumbline.lab.bandits import noisy_arms, practised
from plumbline.objectives.rl._dapo import dapo
from plumbline.objectives.rl._group_advantages import group_advantages
from plumbline.objectives.rl.clipped import clipped, log_ratio, over_tokens, token_mean
from plumbline.objectives.rl.entropy_weights import exponential, linear

_TINY = 1e-8


@objective(
    paper=Paper(
        "Rethinking Entropy Interventions in RLVR: An Entropy Change Perspective",
        "Hao et al.",
        2025,
        arxiv="2510.10150",
    ),
    says="The clipped policy loss with less weight on tokens whose update would change the policy's entropy most.",
    differs=(
        "The scale of the weights is the largest change over all processes; the official code takes one a process. "
        "Under gradient accumulation both take that of the micro-batch.",
        "The change is the single-logit one of the official code; the full first-order change needs sum p^2 log p over "
        "the vocabulary, which no kernel gives.",
        "low 0.2, high 0.28, dual_clip 10 and the smallest weight 0.8 are those of the official scripts.",
    ),
    needs=("batch",),
)
def steer(
    x: Scored, advantages: Tensor, x_old: Scored | None = None, weights: Tensor | None = None, *,
    weighing: Callable[[Tensor, Tensor], Tensor] = exponential, low: Probability = 0.2, high: NonNegative = 0.28,
    dual_clip: Annotated[float, Bound(gt=1)] | None = 10.0,
) -> Tensor:  # fmt: skip
    r"""Per-token loss.

    .. math:: \ell_t = f(|\Omega_t|)\,\ell^{clip}_t,\qquad
              \Omega_t = \frac{A_t}{\pi_{old}(y_t)}\, p_t (1 - p_t) (\ln p_t + H_t),\qquad p_t = \pi_\theta(y_t)

    Omega is the first-order change of the entropy if the update moved the token's own logit alone.

    Args:
        x: the trained model on the rollouts, logps [B, T], with entropy H; only logps gets a gradient.
        advantages: A, [B] or [B, T].
        x_old: the policy that the rollouts were sampled from, logps [B, T]; None is x itself, detached.
        weights: [B, T] or [B, 1], a further factor, detached (engine mismatch).
        weighing: f, from (the changes [B, T], the mask [B, T]) to weights [B, T], detached: ``exponential`` (1 down to
            0.8) or ``linear`` (1.2 down to 0.8) of ``objectives.rl.entropy_weights``.
        low, high, dual_clip: as in ``grpo``.

    Returns:
        [B, T], 0 where masked. Notes ``steer_weight``, ``entropy``, and what ``grpo`` notes.

    Raises:
        InputError: advantages, weights or x_old do not fit x [B, T], or x has no entropy.
    """
    change = log_ratio("steer", x, x_old)
    h, logp = x.entropy().detach(), x.logps.detach()
    old = logp - change.detach()
    p = logp.exp().clamp(_TINY, 1 - _TINY)
    omega = over_tokens("steer", "advantages", advantages, x) / old.exp().clamp(min=_TINY)
    omega = omega * p * (1 - p) * (p.log() + h)
    omega = torch.where(x.mask & omega.isfinite(), omega.abs(), 0.0)
    weight = weighing(omega, x.mask)  # of constants: no gradient passes
    note(steer_weight=token_mean(x, weight), entropy=token_mean(x, h))
    both = weight if weights is None else weight * over_tokens("steer", "weights", weights, x)
    return clipped("steer", x, change, advantages, both, low=low, high=high, dual_clip=dual_clip, cap=None)


def _example(mask: Tensor) -> dict[str, Tensor]:
    return {"advantages": torch.tensor([1.0, -0.5, 0.8, -1.2])}


@claim(
    steer,
    "Entropy collapses later than under the plain clipped loss; with linear weights, whose mean is above 1, so that no "
    "smaller step explains it. The same weights on other tokens do not help.",
    cost="cpu:8s",
)
def delays_collapse() -> Evidence:
    g = generator(0, "steer")

    def shuffled(change: Tensor, mask: Tensor) -> Tensor:
        return linear(change, mask)[torch.randperm(len(change), generator=g)]

    def left(loss: Callable[..., Tensor]) -> list[float]:
        found = []
        for seed in range(5):
            path = practised(
                lambda x, r, old: loss(x, group_advantages(r, torch.zeros(16).long())), noisy_arms(20),
                torch.zeros(1, 20), steps=100, lr=0.3, seed=seed,
            )  # fmt: skip
            found.append(float(entropy(path[-1])))
        return found

    losses: dict[str, Callable[..., Tensor]] = {
        "steer": steer, "steer, linear": partial(steer, weighing=linear), "no weights": dapo,
        "shuffled": partial(steer, weighing=shuffled),
    }  # fmt: skip
    ended, mean = {}, {}
    for name, loss in losses.items():
        with noted() as heard:
            ended[name] = left(loss)
        mean[name] = float(torch.tensor(heard.get("steer_weight", [1.0])).mean())
    ours, even, plain, other = ended.values()
    later = all(min(a, b) > c for a, b, c in zip(ours, even, plain, strict=True))
    return Evidence(
        later and mean["steer, linear"] > 1,
        {"entropy at step 100": ended, "mean weight": mean},
        control=all(a > b for a, b in zip(even, other, strict=True)),
    )
