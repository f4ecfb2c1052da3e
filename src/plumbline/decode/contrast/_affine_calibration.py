"""Affine calibration of label words: divide or subtract what the model answers without the evidence."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.contrast.labels import Affine
from plumbline.kernels.seeds import generator


@function(
    paper=Paper("Debiasing Large Visual Language Models", "Zhang et al.", 2024, arxiv="2403.05262"),
    says="Rescale class probabilities so that the evidence-free answer is uniform, or shift it to zero.",
    differs=(
        "Keeps W's diagonal only: both of the paper's forms are diagonal.",
        "Class probabilities are sums over the label words' token ids that the caller gives (label_ids), where the "
        "official code looks for the lower-cased words among the top tokens.",
    ),
)
def affine_calibration(free: Tensor, *, diagonal: bool = True, eps: NonNegative = 1e-4) -> Affine:
    r"""The map that takes the evidence-free answer out of class probabilities: ``affine_calibration(free)(probs)``.

    .. math:: q = W p + b, \qquad p_{free} = \overline{free} / \textstyle\sum \overline{free} + \epsilon

    ``diagonal``: :math:`W = diag(p_{free})^{-1}, b = 0`, and q is divided by its sum. Otherwise
    :math:`W = I, b = -p_{free}`: scores, some of them negative, of which only the order counts.

    Args:
        free: [M, C] probabilities of C classes from M evidence-free runs ("none", "unk", content-free strings), which
            are averaged; [N, M, C] gives each of N examples a map of its own, the paper's default; [C] is one run.
            Take them from ``label_probs``.
        diagonal: divide by the evidence-free answer (True) or subtract it.
        eps: added to it, so that a class of probability 0 can be divided by.

    Returns:
        Affine with ``weight`` and ``bias`` [C] or [N, C]; call it with probs [N, C].

    Raises:
        InputError: negative probabilities, a row that sums to 0, or a class at 0 with eps 0.
    """
    free = free if free.dim() > 1 else free[None]
    free = free.to(torch.promote_types(free.dtype, torch.float32)).mean(-2)
    mass = free.sum(-1, keepdim=True)
    if not bool(((free >= 0).all(-1, keepdim=True) & (mass > 0) & mass.isfinite()).all()):
        raise refuse("affine_calibration", "free", "probabilities [M, C], none negative, rows not all 0",
                     f"rows that sum to {mass.flatten()[:4].tolist()}", "take them from label_probs")  # fmt: skip
    prior = free / mass + eps
    if diagonal and bool((prior == 0).any()):
        raise refuse("affine_calibration", "eps", "> 0 where a class has probability 0", eps, "leave it at its default")
    if diagonal:
        return Affine(1 / prior, torch.zeros_like(prior), True)
    return Affine(torch.ones_like(prior), -prior, False)


@claim(
    affine_calibration,
    "Dividing by the evidence-free answer restores the accuracy that the prior had cost; multiplying by it does not.",
    cost="cpu:2s",
)
def restores_prior_free_accuracy() -> Evidence:
    """2000 balanced questions of 4 classes; logits are evidence plus one strong prior."""
    g = generator(0, "affine_calibration")
    prior = torch.tensor([3.0, 1.0, -1.0, -3.0])
    right = torch.arange(2000) % 4
    evidence = torch.randn(2000, 4, generator=g)
    evidence[torch.arange(2000), right] += 2.0
    probs, free = torch.softmax(evidence + prior, -1), torch.softmax(prior, -1)

    def balanced(scores: Tensor) -> float:
        """Mean over classes of the share of their questions that are answered right."""
        hit = (scores.argmax(-1) == right).float()
        return float(torch.stack([hit[right == c].mean() for c in range(4)]).mean())

    calibrated = affine_calibration(free, eps=0.0)
    measured = {
        "before": balanced(probs),
        "divided": balanced(calibrated(probs)),
        "subtracted": balanced(affine_calibration(free, diagonal=False)(probs)),
        "prior_free_bayes": balanced(evidence),
        "multiplied": balanced(probs * free),
        "uniform_error": float((calibrated(free) - 0.25).abs().max()),
    }
    exact = measured["divided"] == measured["prior_free_bayes"] and measured["uniform_error"] < 1e-6
    gained = measured["divided"] - measured["before"]
    return Evidence(
        holds=gained > 0.1 and exact, measured=measured, control=measured["multiplied"] < measured["before"]
    )
