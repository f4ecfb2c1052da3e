"""Group Sequence Policy Optimization: one importance ratio a rollout, the geometric mean of its tokens'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Evidence, NonNegative, Paper, Probability, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.objectives.rl._grpo import grpo
from plumbline.objectives.rl.clipped import clipped, log_ratio, row_mean


@objective(
    paper=Paper("Group Sequence Policy Optimization", "Zheng et al.", 2025, arxiv="2507.18071"),
    says="The clipped policy loss with the ratio of whole rollouts, length-normalised, in place of the tokens'.",
    differs=(
        "Written as the paper's token variant, whose loss and gradient are the same when a row has one advantage, so "
        "that advantages and weights may differ from token to token.",
        "dual_clip, cap and weights are off unless given, as in grpo.",
    ),
)
def gspo(
    x: Scored, advantages: Tensor, x_old: Scored | None = None, weights: Tensor | None = None, *,
    low: Probability = 3e-4, high: NonNegative = 4e-4, dual_clip: Annotated[float, Bound(gt=1)] | None = None,
    cap: Annotated[float, Bound(gt=1)] | None = None,
) -> Tensor:  # fmt: skip
    r"""Per-rollout loss.

    .. math:: \ell_i = -\min\bigl(s_i A_i,\ \mathrm{clip}(s_i, 1-low, 1+high)\,A_i\bigr),\qquad
              s_i = \Bigl(\frac{\pi_\theta(o_i)}{\pi_{old}(o_i)}\Bigr)^{1/|o_i|},\qquad
              \nabla s_i = \frac{s_i}{|o_i|} \sum_t \nabla\log\pi_\theta(o_{it})

    Args:
        x: the trained model on the rollouts, logps [B, T]; the only argument that gets a gradient.
        advantages: [B] or [B, T].
        x_old: the policy that the rollouts were sampled from, logps [B, T]; None is x itself, detached.
        weights: [B, T] or [B, 1], a factor of the policy term, detached.
        low, high: the clip, the paper's 3e-4 and 4e-4: a mean of log-ratios is a small number.
        dual_clip, cap: as in ``grpo``.

    Returns:
        [B]. Notes ``clip_low``, ``clip_high`` and ``ratio``, each rollout counted by its tokens.

    Raises:
        InputError: advantages, weights or x_old do not fit x [B, T].
    """
    change = log_ratio("gspo", x, x_old)
    mean = row_mean(x, change).detach()[:, None]  # [B, 1], log s
    tokens = mean + (x.logps - x.logps.detach())  # its value; of every token, the token's gradient
    return row_mean(
        x, clipped("gspo", x, tokens, advantages, weights, low=low, high=high, dual_clip=dual_clip, cap=cap)
    )


def _example(mask: Tensor) -> dict[str, Tensor]:
    return {"advantages": torch.tensor([1.0, -0.5, 0.8, -1.2])}


@claim(
    gspo,
    "Noise in single tokens' log-probabilities averages out over a rollout: token ratios scatter, and their clip "
    "takes away gradients; the sequence's ratio stays near 1 and the gradient keeps its direction.",
    cost="cpu:2s",
)
def noise_averages_out() -> Evidence:
    g, rows, tokens = generator(0, "gspo"), 64, 400
    logps = -torch.rand(rows, tokens, generator=g)
    old = Scored(logps + 0.4 * torch.randn(rows, tokens, generator=g))  # as of another engine or another router
    advantages = torch.randn(rows, generator=g)

    def slope(loss: Callable[..., Tensor], old: Scored | None) -> Tensor:
        leaf = logps.clone().requires_grad_()
        (found,) = torch.autograd.grad(loss(Scored(leaf), advantages, old).mean(), leaf)
        return found.flatten()

    clean = slope(gspo, None)  # both methods' when there is no noise

    def sequence(x: Scored, a: Tensor, old: Scored | None) -> Tensor:
        return gspo(x, a, old, low=0.2, high=0.2)

    ours, theirs = (float(torch.cosine_similarity(slope(f, old), clean, dim=0)) for f in (sequence, grpo))
    return Evidence(ours > 0.99, {"cosine": ours, "cosine, token ratios": theirs}, control=theirs < 0.9)
