"""Identity Preference Optimization: regress the log-ratio gap to a fixed target instead of driving it to infinity."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, Positive, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.lab.preferences import preferred_optimum
from plumbline.objectives.preference._dpo import dpo


@objective(
    paper=Paper(
        "A General Theoretical Paradigm to Understand Learning from Human Preferences",
        "Azar et al.",
        2023,
        arxiv="2310.12036",
    ),
    says="Pull the gap of two log-ratios to 1/(2 beta), so that even certain preferences keep the reference in sight.",
    differs=(
        "Log-ratios are averaged over each answer's tokens, as in the authors' experiments (so TRL reports from them): "
        "a squared sum would grow with length. On answers of one token the two are the same.",
    ),
)
def ipo(chosen: Scored, rejected: Scored, chosen_ref: Scored, rejected_ref: Scored, *, beta: Positive = 0.1) -> Tensor:
    r"""Per-pair IPO loss.

    .. math:: \ell = \Bigl(\bar h_w - \bar h_l - \frac{1}{2\beta}\Bigr)^2,\qquad
              \bar h_y = \frac{1}{|y|}\log\frac{\pi_\theta(y)}{\pi_{ref}(y)}

    Args:
        chosen, rejected: the trained model on the preferred answer :math:`y_w` and the other :math:`y_l`, logps [B, T].
        chosen_ref, rejected_ref: the frozen reference on the same.
        beta: the paper's :math:`\tau`, strength of the tie to the reference; the target gap is 1/(2 beta) nats a token.

    Returns:
        [B], squared nats per token.
    """
    gap = (chosen.mean() - chosen_ref.mean()) - (rejected.mean() - rejected_ref.mean())
    return (gap - 1 / (2 * beta)).square()


@claim(
    ipo,
    "With preferences that never err its optimum is still ref(y) exp(P(y wins)/beta); DPO's forgets the reference.",
    cost="cpu:8s",
)
def stays_near_the_reference() -> Evidence:
    g = generator(0, "ipo")
    rank, ref, beta = torch.rand(6, generator=g), torch.randn(6, generator=g) * 0.5, 0.5
    certain = rank * 1e4  # the better answer of a pair wins every time
    wins = (torch.sigmoid(certain[:, None] - certain)).mean(1)  # against a uniform opponent, itself among them
    wanted = (ref + wins / beta).softmax(-1)

    found = float((preferred_optimum(partial(ipo, beta=beta), certain, ref, steps=1000) - wanted).abs().max())
    forgotten = preferred_optimum(partial(dpo, beta=beta), certain, ref, steps=1000).max()
    told = {"largest error": found, "mass of the best answer": wanted.max(), "mass under DPO": forgotten}
    return Evidence(found < 1e-3, told, control=bool(forgotten > 0.98))
