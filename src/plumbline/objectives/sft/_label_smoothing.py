"""Label smoothing: a share of every target is spread evenly over the vocabulary, so that scores stay finite."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Evidence, Paper, claim, objective
from plumbline.core.scored import Scored


@objective(
    paper=Paper(
        "Rethinking the Inception Architecture for Computer Vision", "Szegedy et al.", 2015, arxiv="1512.00567"
    ),
    says="Cross-entropy against targets that keep 1 - epsilon of their mass and spread the rest over the vocabulary.",
    differs=("The spread is uniform, as in the paper's experiments; its general form admits any fixed distribution.",),
)
def label_smoothing(x: Scored, *, epsilon: Annotated[float, Bound(ge=0, lt=1)] = 0.1) -> Tensor:
    r"""Per-token label-smoothed cross-entropy.

    .. math:: \ell_t = -(1-\epsilon)\log\pi_\theta(y_t) - \frac{\epsilon}{V}\sum_v \log\pi_\theta(v)

    The sum over the vocabulary is the mean score less the log-normaliser, and the mean score needs no pass over the
    vocabulary: the loss costs what the negative log-likelihood does.

    Args:
        x: the trained model, logps [B, T]; an id that it forbids makes the loss infinite.
        epsilon: share of a target's mass that is spread, over all V ids, the target among them.

    Returns:
        [B, T] nats, 0 where masked.

    Raises:
        InputError: log-probabilities without their model or logits.
    """
    scores = x.moments()
    even = torch.where(x.mask, x.logps + (scores.mean - scores.target), 0.0)  # mean over v of log pi(v)
    return -(1 - epsilon) * x.logps - epsilon * even


@claim(
    label_smoothing,
    "On data that can be told apart the target's lead in score stays at log(V (1 - eps) / eps + 1); "
    "under cross-entropy it never stops growing.",
    cost="cpu:4s",
)
def score_lead_stays_finite() -> Evidence:
    vocab, epsilon = 8, 0.1
    ids = torch.arange(vocab)[:, None]

    def leads(share: float) -> tuple[float, float]:
        """The label's score less the mean of the others, after a tenth of the steps and after all."""
        table, found = torch.zeros(vocab, 1, vocab), []
        for step in range(1, 2001):
            z = table.requires_grad_()
            (slope,) = torch.autograd.grad(
                label_smoothing(Scored.from_logits(z, ids, shift=False), epsilon=share).sum(), z
            )
            table = z.detach() - slope
            if step in (200, 2000):
                own = table[:, 0].diagonal()
                found.append(float((own - (table[:, 0].sum(-1) - own) / (vocab - 1)).mean()))
        return found[0], found[1]

    limit = math.log(vocab * (1 - epsilon) / epsilon + 1)
    early, late = leads(epsilon)
    free_early, free_late = leads(0.0)
    off = abs(late - limit) + abs(early - limit)
    return Evidence(
        off < 0.01,
        {"lead": [early, late], "limit": limit, "lead under cross-entropy": [free_early, free_late]},
        control=free_late - free_early > 2.0 and free_late > 1.5 * limit,
    )
