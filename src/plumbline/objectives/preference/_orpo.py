"""Odds Ratio Preference Optimization: supervised fine-tuning that pushes the rejected answer away as it goes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.lab.preferences import answers, rows
from plumbline.objectives.preference.odds import log_odds


@objective(
    paper=Paper(
        "ORPO: Monolithic Preference Optimization without Reference Model", "Hong et al.", 2024, arxiv="2403.07691"
    ),
    says="Likelihood of the chosen answer plus the log odds ratio of chosen to rejected, in one stage, no reference.",
    differs=(
        "The likelihood term is each row's token mean, so a short answer weighs as much as a long one; the paper's "
        "code and TRL average over all tokens of the batch at once. With rows of one length the two are the same.",
        "It scores the tokens that the batch scores (the answer, as a rule); TRL's also scores the prompt.",
        "An answer whose probability has rounded to 1 has finite odds and no gradient from them.",
    ),
)
def orpo(chosen: Scored, rejected: Scored, *, weight: NonNegative = 0.1) -> Tensor:
    r"""Per-pair ORPO loss.

    .. math:: \ell = -m_w - \lambda\log\sigma\bigl(o_w - o_l\bigr),\qquad
              o_y = \log\frac{e^{m_y}}{1 - e^{m_y}},\quad m_y = \frac{1}{|y|}\log\pi_\theta(y)

    Args:
        chosen, rejected: the trained model on the preferred answer :math:`y_w` and the other :math:`y_l`, logps [B, T].
        weight: the paper's :math:`\lambda` (TRL calls it beta); 0 is plain fine-tuning on the chosen answers.

    Returns:
        [B] nats.
    """
    ratio = log_odds(chosen.mean()) - log_odds(rejected.mean())
    note(log_odds_ratio=ratio)
    return -chosen.mean() - weight * F.logsigmoid(ratio)


@claim(
    orpo,
    "Fine-tuning on chosen answers raises rejected ones that resemble them; the odds ratio sets the two apart.",
    cost="cpu:4s",
)
def holds_the_rejected_back() -> Evidence:
    features = torch.zeros(2, 20)  # of 20 answers: the first two share one feature and differ a little in the other
    features[0, :2], features[1, :2] = 1.0, torch.tensor([0.1, -0.1])
    before = float(answers(torch.zeros(20)).total()[1])

    def after(loss: Callable[[Scored, Scored], Tensor]) -> list[float]:
        theta = torch.zeros(2, requires_grad=True)
        for _ in range(400):
            x = answers(theta @ features)
            (slope,) = torch.autograd.grad(loss(rows(x, torch.tensor([0])), rows(x, torch.tensor([1]))).sum(), theta)
            theta = (theta.detach() - 0.05 * slope).requires_grad_()
        return answers(theta.detach() @ features).total()[:2].tolist()

    chosen, rejected = after(lambda w, other: orpo(w, other, weight=1.0))
    its_chosen, its_rejected = after(lambda w, other: -w.mean())
    told = {"rejected, before": before, "rejected, fine-tuned": its_rejected, "rejected": rejected}
    told |= {"chosen, fine-tuned": its_chosen, "chosen": chosen}
    wider = chosen - rejected > 1.8 * (its_chosen - its_rejected) and chosen > its_chosen and rejected < its_rejected
    return Evidence(wider, told, control=its_rejected > before + 1.5)
