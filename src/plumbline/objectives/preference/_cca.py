"""Condition Contrastive Alignment: classifier-free guidance trained into the weights, so sampling needs one pass."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, Positive, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.divergence import forward_kl, log_probs
from plumbline.kernels.seeds import generator
from plumbline.lab.preferences import settled
from plumbline.objectives.preference.judgement import per_row


@objective(
    paper=Paper(
        "Toward Guidance-Free AR Visual Generation via Condition Contrastive Alignment",
        "Chen et al.",
        2024,
        arxiv="2410.09347",
    ),
    says="Raise an answer under its own condition and lower it under another row's, as guidance would at decoding.",
    differs=(
        "Any condition before a sequence will do (a system prompt, an instruction, a class token), not images alone.",
        "It is divided by max(lambda, 1) always; the authors' code does so only where conditions are dropped at all.",
    ),
)
def cca(
    x: Scored, x_ref: Scored, mismatched: Scored, mismatched_ref: Scored, null: Tensor | None = None, *,
    beta: Positive = 0.02, negative_weight: NonNegative = 300.0,
) -> Tensor:  # fmt: skip
    r"""Per-row CCA loss.

    .. math:: \ell = -\frac{\log\sigma(\beta g^+) + \lambda\log\sigma(-\beta g^-)}{\max(\lambda, 1)},\qquad
              g^+ = \log\frac{\pi_\theta(y|c)}{\pi_{ref}(y|c)},\quad g^- = \log\frac{\pi_\theta(y|c')}{\pi_{ref}(y|c')}

    On a ``null`` row, where nothing sets the two conditions apart, the second term is :math:`\log\sigma(\beta g^-)`
    with weight 1: one more positive. Such rows keep the unconditional model trained.

    Args:
        x, x_ref: the trained model and the frozen reference on sequences y after their condition c, logps [B, T].
        mismatched, mismatched_ref: the same on y after the condition c' of the batch's next row (roll the conditions by
            one; a random permutation biases small batches), logps [B, T].
        null: [B] bool, rows whose condition was dropped on both sides (a tenth in the paper) or with c' = c; none
            when left out.
        beta: 1/beta is the guidance scale of the optimum
            :math:`\beta\log\frac{\pi_\theta}{\pi_{ref}} = \log\frac{p(y|c)}{\lambda p(y)}`.
        negative_weight: :math:`\lambda`; if small or large, a normalised model falls short of that guidance or goes
            beyond it. The authors take 50 to 1000 by model; 300 is a judgement between them.

    Returns:
        [B] nats. The authors keep dropout on in both models.

    Raises:
        InputError: ``null`` is not of shape [B].
    """
    matched, other = x.log_ratio(x_ref), mismatched.log_ratio(mismatched_ref)
    same = torch.zeros_like(matched) if null is None else per_row("cca", "null", null, x)
    same = same.to(torch.bool)
    weight = torch.where(same, 1.0, negative_weight).to(other.dtype)
    second = weight * F.logsigmoid(beta * torch.where(same, other, -other))
    return -(F.logsigmoid(beta * matched) + second) / max(negative_weight, 1.0)


@claim(
    cca,
    "Its optimum is ref(y|c) (p(y|c)/p(y))^(1/beta), guidance by 1/beta, up to the constant that lambda sets.",
    cost="cpu:10s",
)
def is_guidance_in_one_pass() -> Evidence:
    ref = log_probs(torch.randn(4, 6, generator=generator(0, "cca")))  # 4 conditions, 6 outcomes; also the data
    lift = ref - ref.exp().mean(0).log()  # log p(y|c) / p(y)
    c, y, other = torch.cartesian_prod(torch.arange(4), torch.arange(6), torch.arange(4)).T
    often, beta = ref.exp()[c, y] / 16, 0.5

    def tuned(table: Callable[[Tensor], Tensor], start: Tensor, weight: float) -> Tensor:
        def value(raw: Tensor) -> Tensor:
            now = table(raw)
            sides = [Scored(logps[which, y][:, None]) for which in (c, other) for logps in (now, ref)]
            return (often * cca(*sides, beta=beta, negative_weight=weight)).sum()

        return table(settled(value, start, steps=1000))

    free = tuned(lambda r: ref + r, torch.zeros(4, 6), 2.0)  # any score, normalised or not
    off = float((beta * (free - ref) - (lift - math.log(2.0))).abs().max())
    far = {w: float(forward_kl(tuned(log_probs, ref, w), ref + lift / beta).mean()) for w in (2.0, 0.0)}
    told = {"error of the free optimum": off, "KL to guided sampling": far[2.0], "without the contrast": far[0.0]}
    return Evidence(off < 1e-3 and far[2.0] < 0.02, told, control=far[0.0] > 0.2)
