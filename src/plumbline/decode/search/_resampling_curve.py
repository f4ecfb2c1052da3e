"""The limits of resampling: what sampling until a verifier passes can reach when the verifier can be fooled."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.declare import Count, Evidence, NonNegative, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.search.resampling import Curve, measured, predicted, rates, synthetic_models


@function(
    paper=Paper(
        "Inference Scaling scriptsizeFLaws: The Limits of LLM Resampling with Imperfect Verifiers",
        "Stroebl et al.",
        2024,
        arxiv="2411.17501",
    ),
    says="Predict or measure accuracy and utility of sampling until an imperfect verifier passes, by budget.",
    differs=(
        "Closed forms for any number of problem types and an incomplete verifier; the notebooks have two types and a "
        "complete one.",
        "Measured curves are exact expectations over the order of the samples; the paper averages permutations.",
        "The last worthwhile attempt comes from the posterior over problem types, not from reading a plot.",
    ),
)
def resampling_curve(
    correct: ArrayLike, passes: ArrayLike | None = None, soundness: ArrayLike | None = None,
    completeness: ArrayLike = 1.0, weights: ArrayLike | None = None, *, budget: Count = 200, kappa: NonNegative = 1.0,
    cost: NonNegative = 0.0,
) -> Curve:  # fmt: skip
    r"""Outcomes of drawing up to K samples and keeping the first that passes.

    .. math:: b_i = (1 - c) r_i + s (1 - r_i), \quad \pi_i = \frac{c\, r_i}{1 - b_i}, \quad
        \mathrm{correct}(K) = \sum_i w_i \pi_i (1 - b_i^K), \quad
        \mathrm{wrong}(K) = \sum_i w_i (1 - \pi_i)(1 - b_i^K)

    and :math:`U(K) = \mathrm{correct} - \kappa\,\mathrm{wrong} - \mathrm{cost} \sum_i w_i (1 - b_i^K)/(1 - b_i)`.
    Attempt k is worth :math:`\sum_i w_i b_i^{k-1} [c\,r_i - \kappa (1 - r_i)(1 - s) - \mathrm{cost}]`: rejections make
    hard problems likelier, so that among unlike problems it turns negative at a finite k.

    Args:
        correct: predicted: rates r [P] of right samples a problem or problem type. Measured: [P, n] bool, whether
            each sample is truly right (drop problems whose reference solution fails the strong tests).
        passes: measured only: [P, n] bool, whether the verifier passes it.
        soundness, completeness: predicted only: s = P(reject | wrong) and c = P(pass | right), one or [P].
        weights: predicted only: [P], of the types; alike when left out.
        budget: the largest K. kappa: what a wrong answer costs, a right one being worth 1. cost: of one sample.

    Returns:
        A ``Curve`` over K = 1 .. budget, with the ceiling at an unlimited budget and the last worthwhile attempt
        (measured: inf where no attempt within the budget does harm).

    Raises:
        InputError: rates outside [0, 1], shapes that do not fit, a budget beyond the n measured samples.
    """
    if passes is not None:
        right, passed = np.asarray(correct), np.asarray(passes)
        if right.ndim != 2 or right.shape != passed.shape or right.dtype != bool or passed.dtype != bool:
            shapes = f"{right.dtype} {right.shape} and {passed.dtype} {passed.shape}"
            raise refuse("resampling_curve", "correct and passes", "bool [P, n]", shapes, "judge every sample twice")
        if soundness is not None or weights is not None or np.any(np.asarray(completeness) != 1.0):
            do = "leave soundness, completeness and weights out: passes holds them"
            raise refuse("resampling_curve", "passes", "given alone", "both forms", do)
        if budget > right.shape[1]:
            raise refuse("resampling_curve", "budget", f"at most {right.shape[1]} samples", budget, "draw more samples")
        return measured(right, passed, budget=budget, kappa=kappa, cost=cost)
    r = np.atleast_1d(np.asarray(correct, np.float64))
    if r.ndim != 1 or soundness is None:
        got = f"shape {r.shape}" if r.ndim != 1 else "no soundness"
        raise refuse("resampling_curve", "correct", "rates [P] with a soundness, or bool with passes", got, "give one")
    w = np.ones(len(r)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != r.shape or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise refuse("resampling_curve", "weights", f"{len(r)} numbers >= 0", weights, "weigh every type")
    r, s, c = (
        rates("correct", r, len(r)),
        rates("soundness", soundness, len(r)),
        rates("completeness", completeness, len(r)),
    )
    return predicted(r, s, c, w / w.sum(), budget=budget, kappa=kappa, cost=cost)


@claim(
    resampling_curve,
    "With a verifier that can be fooled, no budget lifts a weak model to a strong one's single-sample accuracy, and a "
    "few attempts are best; a perfect verifier would lift it past.",
    cost="cpu:1s",
)
def no_budget_replaces_a_better_model() -> Evidence:
    models = synthetic_models()
    (weak, fooled), (strong, _) = models["weak"], models["strong"]
    curve = resampling_curve(weak, None, fooled, budget=1000)
    perfect = resampling_curve(weak, None, 1.0, budget=1000)
    two = {k: resampling_curve([0.87, 0.13], None, 0.75, 1.0, [0.58, 0.42], kappa=k).best for k in (0.7, 1.0, 2.0)}
    shown = {"weak_single": weak.mean(), "weak_ceiling": curve.ceiling, "strong_single": strong.mean()}
    shown |= {"weak_ceiling_perfect": perfect.ceiling} | {f"best_at_kappa_{k:g}": b for k, b in two.items()}
    return Evidence(
        holds=weak.mean() < curve.ceiling < strong.mean() and list(two.values()) == [3.0, 2.0, 1.0],
        measured=shown,
        control=perfect.ceiling > strong.mean(),
    )
