"""Gradient entanglement: will a margin loss raise the chosen answer and lower the rejected one, or move both alike?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.core.declare import Count, Evidence, Paper, claim, probe
from plumbline.core.errors import refuse
from plumbline.core.finding import Finding
from plumbline.core.scored import Scored
from plumbline.lab.entangled import letter_pairs, one_step, random_pairs
from plumbline.lab.tiny import tiny
from plumbline.models import LM, load
from plumbline.objectives.diagnose.entangled_gradients import foretold, gradients, heat, sketched, told
from plumbline.objectives.diagnose.pairs import FEW, Pairs, checked, score, slopes, still, too_few
from plumbline.objectives.preference import dpo, ipo, orpo, simpo


@probe(
    paper=Paper(
        "A Common Pitfall of Margin-based Language Model Alignment: Gradient Entanglement", "Yuan et al.", 2024,
        arxiv="2410.13828",
    ),
    says="Tells for each pair whether a margin loss will raise or lower the log-probability of either answer.",
    differs=(
        "The loss's two slopes are taken by autograd at the model's own log-probabilities, for any loss; the paper "
        "derives them by hand, and its script for the condition takes the minimum of the same norm twice.",
        "Gradients are those of summed log-probabilities throughout: a loss of means has its 1/length in its slopes.",
        "project keeps a signed bucket sum of each gradient (a sparse Rademacher projection: unbiased inner products, "
        "one draw a parameter), which the paper has no need of.",
    ),
    gives=("gradient_entanglement", "both_rise", "both_fall", "entangled_cosine"),
)  # fmt: skip
def gradient_entanglement(
    lm: LM, pairs: Pairs, ref: LM | None = None, *, loss: Callable | None = None,
    parameters: Callable | None = None, project: Count | None = None, heat_maps: int = 0, seed: int = 0,
) -> Finding:  # fmt: skip
    r"""The share of pairs [N] that one step of gradient descent on a loss does not move as wished.

    .. math:: \Delta\log\pi_w \approx \eta\,(d_w |g_w|^2 - d_l \langle g_w, g_l\rangle),\qquad
              \Delta\log\pi_l \approx \eta\,(d_w \langle g_w, g_l\rangle - d_l |g_l|^2)

    with :math:`g = \nabla\log\pi(y)`, :math:`d_w = -\partial\ell/\partial\log\pi_w` and
    :math:`d_l = \partial\ell/\partial\log\pi_l`. Both move as wished where
    :math:`\langle g_w, g_l\rangle < \min(d_w/d_l\,|g_w|^2,\; d_l/d_w\,|g_l|^2)`.

    Args:
        lm: an LM or a bare model. pairs: {"chosen": rows, "rejected": rows}, tokenised.
        ref: the reference of the loss, the model itself (before any step) where left out.
        loss: an objective of ``chosen, rejected, chosen_ref, rejected_ref``; where left out any function of the
            margin, such as DPO, for which both slopes are alike.
        parameters: name -> bool, the parameters that are trained; those that require gradients where left out.
        project: keep this many numbers of each gradient instead of two flat copies of it.
        heat_maps: pairs whose tokens are compared one by one, cosine of the gradients of single tokens.
        seed: of the projection.

    Returns:
        A share of pairs; a row per pair with inner product, cosine, norms, slopes and both predicted changes per
        unit of learning rate.
    """
    n = checked("gradient_entanglement", pairs)
    if n < FEW:
        return too_few("gradient_entanglement", n)
    table, maps = [], []
    with still(lm) as model:
        keep, reduce = _kept(model, parameters), partial(sketched, size=project, seed=seed)
        for i in range(n):
            rows = [pairs[name][i] for name in ("chosen", "rejected")]
            (won, g_w), (lost, g_l) = (gradients(model, row, keep, reduce) for row in rows)
            d_w, d_l = _slopes(loss, won, lost, lm if ref is None else ref, rows)
            table.append(foretold(i, g_w, g_l, d_w, d_l))
            maps += [heat(lm, model, rows, keep, i, project or 4096, seed)] if i < heat_maps else []
    return told(table, maps)


def _kept(model: nn.Module, chosen: Callable[[str], bool] | None) -> dict[str, Tensor]:
    wanted = (lambda name: True) if chosen is None else chosen
    kept = {name: p for name, p in model.named_parameters() if p.requires_grad and wanted(name)}
    if not kept:
        do = "pass a function of names that is true of some"
        raise refuse("gradient_entanglement", "parameters", "true of at least one trainable parameter", "none", do)
    return kept


def _slopes(loss: Callable[..., Tensor] | None, won: Scored, lost: Scored, ref: Any, rows: Any) -> tuple[float, float]:
    if loss is None:
        return 1.0, 1.0
    with torch.no_grad(), still(ref) as other:
        return tuple(float(d) for d in slopes(loss, won, lost, *(score(other, [row]) for row in rows)))  # type: ignore


def _example(items: int) -> tuple[nn.Module, Pairs]:
    return tiny("gpt2"), random_pairs(items)


_LOSSES = {
    "dpo": (dpo, lambda won, lost: dpo(won, lost, won.detach(), lost.detach())),
    "ipo": (ipo, lambda won, lost: ipo(won, lost, won.detach(), lost.detach())),
    "simpo": (simpo, simpo), "orpo": (orpo, orpo),
}  # fmt: skip


@claim(
    gradient_entanglement,
    "What a step does to either answer follows from two slopes, two norms and one inner product, for every loss.",
    cost="cpu:4s",
)
def steps_are_foretold() -> Evidence:
    model, pairs, eta = tiny("gpt2").double(), random_pairs(2), 1e-5
    off, blind, told_slopes = {}, [], {}
    for name, (loss, of_two) in _LOSSES.items():
        table = gradient_entanglement(model, pairs, loss=loss).table
        errors = []
        for i, row in enumerate(table):
            steps = zip(*(one_step(model, pairs, i, of_two, lr=lr) for lr in (eta, -eta)))
            up, down = ((a - b) / (2 * eta) for a, b in steps)  # central: free of the second order
            errors += [abs(row["chosen_change"] / up - 1), abs(row["rejected_change"] / down - 1)]
            blind.append(abs(row["slope_chosen"] * row["norm_chosen"] ** 2 / up - 1))
        off[name], told_slopes[name] = max(errors), [table[0]["slope_chosen"], table[0]["slope_rejected"]]
    measured = {"relative error": off, "slopes": told_slopes, "without the inner product": max(blind)}
    return Evidence(max(off.values()) < 1e-4, measured, control=max(blind) > 0.01)


@claim(
    gradient_entanglement,
    "Answers that share all but a late token have aligned gradients where both tokens are about equally likely, so DPO "
    "moves many of them the same way; answers that differ from the first token on are moved apart.",
    cost="cpu:20s",
)
def likeness_entangles() -> Evidence:
    """On letters of a Markov chain, about equally likely; other texts gave a cosine of 0.52 and 0.67."""
    from scipy.stats import spearmanr

    lm = load("zoo:base", dtype=torch.float32)
    found, agree = {}, {}
    for name, late in (("late", True), ("early", False)):
        pairs = letter_pairs(lm.tokenizer, 12, late=late)
        found[name] = gradient_entanglement(lm, pairs, loss=dpo)
        real = [one_step(lm.model, pairs, i, _LOSSES["dpo"][1], lr=1e-4)[0] for i in range(12)]
        agree[name] = spearmanr([row["chosen_change"] for row in found[name].table], real).statistic
    cosine = {name: f.flat()["entangled_cosine"].value for name, f in found.items()}
    share = {name: f.value for name, f in found.items()}
    holds = cosine["late"] > 0.8 and share["late"] > 0.25 and min(agree.values()) > 0.95
    measured = {"cosine": cosine, "entangled": share, "rank correlation with a real step": agree}
    return Evidence(holds, measured, control=cosine["early"] < 0.3 and share["early"] == 0)
