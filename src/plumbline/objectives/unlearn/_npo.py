"""Negative Preference Optimization: unlearning that slows down once a sequence is forgotten."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from plumbline import lab
from plumbline.core.declare import Evidence, Paper, Positive, claim, objective
from plumbline.core.scored import Scored


@objective(
    paper=Paper(
        "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
        "Zhang et al.",
        2024,
        arxiv="2404.05868",
    ),
    says="Lower the probability of a forget set relative to a frozen reference, with a pull that fades.",
    differs=("The retain term is left to the caller: add any other objective to this one.",),
)
def npo(forget: Scored, forget_ref: Scored, *, beta: Positive = 0.1) -> Tensor:
    r"""Per-sequence NPO loss.

    .. math:: \ell(x) = -\frac{2}{\beta}\,\log\sigma\!\bigl(-\beta\,[\log\pi_\theta(x) - \log\pi_{ref}(x)]\bigr)

    Args:
        forget: the trained model on the forget batch, logps [B, T].
        forget_ref: the frozen reference on the same batch, logps [B, T].
        beta: inverse temperature; as it tends to 0 the gradient tends to gradient ascent's.

    Returns:
        [B] losses in nats; take the mean over B for the paper's objective.
    """
    log_ratio = forget.log_ratio(forget_ref)  # [B]
    return -2.0 / beta * F.logsigmoid(-beta * log_ratio)


@claim(
    npo,
    "Gradient ascent's forget loss keeps growing linearly in the step count; NPO's slows to a crawl.",
    cost="cpu:2s",
)
def divergence_is_slower() -> Evidence:
    rise = {
        name: lab.forget_rise(loss, steps=800) / lab.forget_rise(loss, steps=200)
        for name, loss in (("ascent", lambda x, ref: x.total()), ("npo", lambda x, ref: npo(x, ref, beta=1.0)))
    }
    return Evidence(holds=rise["npo"] < 1.8, measured=rise, control=rise["ascent"] > 3.0)
