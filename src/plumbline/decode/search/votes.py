"""Weighted votes over answers, and how good a list of voted choices is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.errors import refuse
from plumbline.decode.samples import Answer, Samples, Selection

Equal = Callable[[Any, Any], bool]
_TINY = 1e-6  # confidences are kept this far from 0 and 1 before a logarithm is taken


def groups(answers: Sequence[Answer], equal: Equal | None = None) -> list[list[int]]:
    """Indices [n] by answer, in order of first appearance; None is no answer and in no group.

    ``equal`` may say that two answers are one where ``==`` does not ("0.5" and "1/2"). It is closed transitively:
    whatever it joins through a third answer is joined.
    """
    found: dict[Answer, list[int]] = {}
    for i, answer in enumerate(answers):
        if answer is not None:
            found.setdefault(answer, []).append(i)
    if equal is None:
        return list(found.values())
    merged: list[tuple[list[Answer], list[int]]] = []
    for answer, indices in found.items():
        joined = [group for group in merged if any(equal(answer, other) for other in group[0])]
        merged = [group for group in merged if not any(group is other for other in joined)]
        said = [answer, *(a for group in joined for a in group[0])]
        merged.append((said, sorted(indices + [i for group in joined for i in group[1]])))
    return sorted(group[1] for group in merged)


def elect(samples: Samples, weights: ArrayLike, equal: Equal | None = None) -> Selection:
    r"""The answer with the largest total weight, and every answer's share of it.

    .. math:: \mathrm{conf}(a) = \frac{\sum_{i : y_i = a} w_i}{\sum_{i : y_i \neq \varnothing} w_i}

    Equal totals go to the answer that came first. The chosen sample is the heaviest of its answer, the first of those.

    Args:
        samples: n samples of one prompt. weights: [n], at least 0, not all 0 among the samples with an answer.
        equal: see :func:`groups`.
    """
    w = np.asarray(weights, np.float64)
    found = groups(samples.answers, equal)
    if not found:
        return Selection(None, None, {})
    sums = [math.fsum(w[group]) for group in found]  # exactly rounded: the order of the samples moves nothing
    best = int(np.argmax(sums))
    index = max(found[best], key=lambda i: (w[i], -i))
    heaviest = [samples.answers[max(group, key=lambda i: (w[i], -i))] for group in found]
    total = math.fsum(sums)
    return Selection(index, heaviest[best], {a: s / total for a, s in zip(heaviest, sums, strict=True)})


def metrics(selections: Sequence[Selection], truths: Sequence[Answer], *, bins: int = 10) -> dict[str, float]:
    r"""Accuracy and calibration of voted choices over many prompts.

    With :math:`p` a prompt's largest confidence and :math:`a` the share of the answers holding it that are right:
    accuracy is the mean of :math:`a`, Brier the mean of :math:`(a - p)^2`, NLL that of
    :math:`-a \log p - (1 - a) \log(1 - p)`, ECE :math:`\sum_b |\sum_{i \in b} (a_i - p_i)| / n` over equally wide bins.

    Args:
        selections: one a prompt [n]; one without an answer counts as wrong with confidence 0.
        truths: [n], the right answers.
        bins: of the ECE.
    """
    if len(selections) != len(truths) or not len(truths):
        raise refuse("metrics", "truths", f"one for each of {len(selections)} selections", len(truths), "pass both")
    top, right = np.zeros((2, len(truths)))
    for i, (chosen, truth) in enumerate(zip(selections, truths, strict=True)):
        if chosen.confidence:
            top[i] = max(chosen.confidence.values())
            tied = [a for a, p in chosen.confidence.items() if p >= top[i] - 1e-10]
            right[i] = tied.count(truth) / len(tied)
    bin_of = np.ceil(top * bins).clip(1, bins).astype(int)
    p, a = top.clip(_TINY, 1 - _TINY), right.clip(_TINY, 1 - _TINY)
    return {
        "accuracy": float(right.mean()),
        "ece": float(np.abs(np.bincount(bin_of, right - top)).sum() / len(truths)),
        "brier": float(((right - top) ** 2).mean()),
        "nll": float(-(a * np.log(p) + (1 - a) * np.log1p(-p)).mean()),
    }
