"""The numbers of a rollout mismatch as findings, and what a person reads beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.core.finding import Finding
from plumbline.kernels.stats import Estimate
from plumbline.measure import figures
from plumbline.measure.shift.mismatch.rows import Rollout
from plumbline.measure.shift.mismatch.sums import (
    CLAMP,
    Ratios,
    chi_square,
    effective,
    length_correlation,
    moment,
    outside_band,
)
from plumbline.measure.shift.samples import exponential
from plumbline.measure.text import range_of, share
from plumbline.measure.totals import Floats
from plumbline.models.lm import LM

Floats32 = NDArray[np.float32]
LABELS = ("near", "off", "far")  # a log-ratio up to 0.1, up to 1, and beyond
NUMERICS = 0.08  # share of tokens outside [0.9, 1.1] that batch composition alone was reported to cause in bf16
NUMERICS_K3 = 5e-3  # nats a token; bf16 alone stays an order of magnitude below (our judgement)
CORRELATION = 0.5  # of rejection with length, from which a band is one on length
SHOWN = 300  # tokens of a heat map


def token_parts(found: Ratios, seed: int) -> tuple[Finding, ...]:
    """k1, mean and largest difference, share outside, mean weight, chi-square, effective size, perplexity ratio."""
    sums, n = found.tokens, found.n
    k1 = _negated(sums.mean("gap", seed=seed))
    gap, outside, weight = (sums.mean(name, seed=seed) for name in ("abs", "outside", "w"))
    chi2, size, ppl = moment(sums, chi_square, seed), moment(sums, effective, seed), exponential(k1)
    largest = max(abs(found.spread.minimum), abs(found.spread.maximum))
    told = "the trainer finds the engine's answers"
    word = "less" if (k1.value or 0) > 0 else "more"
    return (
        Finding.of("rollout_k1", k1, title="KL by k1", unit="nats per token",
                   sentence=f"{told} {word} likely than the engine did, by {abs(k1.value or 0):.3g} nats a token."),
        Finding.of("rollout_abs", gap, title="Mean difference", unit="nats per token", direction=-1,
                   sentence=f"Log-probabilities differ by {gap.value:.3g} nats on average."),
        Finding(name="rollout_largest", title="Largest difference", value=largest, unit="nats", direction=-1,
                sentence=f"The largest difference at one token is {largest:.3g} nats.", n_items=n),
        Finding.of("rollout_outside", outside, title="Ratios outside [0.9, 1.1]", unit="share of tokens", direction=-1,
                   sentence=f"{share(outside.value)} of the tokens have a ratio outside [0.9, 1.1]."),
        Finding.of("rollout_mean_weight", weight, title="Mean ratio of trainer to engine", unit="ratio",
                   sentence=f"The mean ratio is {weight.value:.4g}; it is 1 where the engine's numbers are right."),
        Finding.of("rollout_chi2", chi2, title="Chi-square of tokens", direction=-1,
                   sentence=f"The variance of token weights is about {chi2.value:.3g}."),
        Finding.of("rollout_ess", size, title="Effective sample, tokens", unit="share of tokens", direction=1,
                   sentence=f"Weighed by token, the sample is worth {share(size.value)} of its size."),
        Finding.of("rollout_ppl_ratio", ppl, title="Perplexity, trainer over engine", unit="ratio",
                   sentence=f"The trainer's perplexity is {ppl.value:.4g} times the engine's."),
    )  # fmt: skip


def answer_parts(found: Ratios, upper: float, seed: int) -> tuple[Finding, ...]:
    """The same of whole answers, what a band would reject, and whether those are the long ones."""
    chi2, size = (moment(found.answers, statistic, seed) for statistic in (chi_square, effective))
    out, rejected = outside_band(found, upper, seed)
    correlation = length_correlation(out, found, seed)
    name, title = "rollout_length_correlation", "Rejection and length (Spearman)"
    if correlation is None:
        why = "Undefined: the band rejects all answers or none, or all are equally long."
        by_length = Finding(name=name, title=title, value=None, sentence=why)
    else:
        told = f"Being rejected correlates with length by {correlation.value:.2f}."
        strong = abs(correlation.value or 0.0) > CORRELATION
        warned = ("a fixed band on whole answers rejects by length: correct by token or by the geometric mean",)
        by_length = Finding.of(name, correlation, title=title, sentence=told, unit="correlation",
                               warnings=warned if strong else (), figure=_by_length(out, found.length))  # fmt: skip
    return (
        Finding.of("rollout_answer_chi2", chi2, title="Chi-square of answers", direction=-1,
                   sentence=f"The variance of whole answers' weights is about {chi2.value:.3g}."),
        Finding.of("rollout_answer_ess", size, title="Effective sample, answers", unit="share of answers", direction=1,
                   sentence=f"Weighed by answer, the sample is worth {share(size.value)} of its size."),
        Finding.of("rollout_rejected", rejected, title=f"Answers outside [1/{upper:g}, {upper:g}]", direction=-1,
                   unit="share of answers",
                   sentence=f"A band of [1/{upper:g}, {upper:g}] on whole answers rejects {share(rejected.value)}."),
        by_length,
    )  # fmt: skip


def _negated(e: Estimate) -> Estimate:
    low, high = (None if x is None else -x for x in (e.high, e.low))
    return replace(e, value=None if e.value is None else -e.value, low=low, high=high)


def reading(k3: Finding, parts: Sequence[Finding], name: str) -> str:
    """What the numbers come to, in a sentence or two."""
    by_name = {part.name: part for part in parts}
    outside, size = by_name["rollout_outside"].value or 0.0, by_name["rollout_answer_ess"].value or 0.0
    told = (f"The engine is {k3.value:.3g} nats a token{range_of(k3)} from {name}, with {share(outside)} of the ratios "
            f"outside [0.9, 1.1]; weighed by whole answers the sample is worth {share(size)} of its size.")  # fmt: skip
    if outside <= NUMERICS and (k3.value or 0.0) > NUMERICS_K3:
        return f"{told} Few tokens differ, but by far more than numerics do: look at the worst of them."
    if outside <= NUMERICS:
        return f"{told} That is within what numerics alone can do."
    return f"{told} That is more than numerics do: check temperature, truncation, template and weights of the engine."


def known_faults(found: Ratios, parts: Sequence[Finding]) -> tuple[str, ...]:
    """Signs of mistakes that have one look: a truncated support, numbers shifted by a position."""
    by_name, told = {part.name: part for part in parts}, []
    weight = by_name["rollout_mean_weight"].interval
    if weight is not None and weight[1] < 0.98 and found.below > 0.95 * found.n:
        told.append("almost no ratio is above 1 and their mean is below 1: the engine seems to renormalise over a kept "
                    "set (top-p, top-k, min-p); record it as support, or sample without")  # fmt: skip
    at = found.shift_correlations()
    best = max(at, key=lambda shift: at[shift])
    if best and at[best] > at[0] + 0.3:
        other = "next" if best > 0 else "previous"
        told.append(f"the engine's numbers fit the trainer's {other} token better (correlation {at[best]:.2f}, "
                    f"{at[0]:.2f} in place): sampler_logps seem shifted by one")  # fmt: skip
    return tuple(told)


def worst_tokens(
    found: Ratios, rollouts: Sequence[Rollout], trainer: Sequence[Floats32], lm: LM
) -> list[dict[str, Any]]:
    """The tokens with the largest differences, in brackets among their neighbours."""
    rows = []
    for _, number, at in sorted(found.worst, key=lambda w: (-w[0], w[1], w[2])):
        row = rollouts[number]
        ours, theirs = float(trainer[number][at]), float(row.sampler[at])
        rows.append({
            "id": row.id, "position": at, "token": _context(row, at, lm), "trainer": math.exp(ours),
            "engine": math.exp(theirs), "ratio": math.exp(min(ours - theirs, CLAMP)), "log ratio": ours - theirs,
        })  # fmt: skip
    return rows


def _context(row: Rollout, at: int, lm: LM, before: int = 8, after: int = 3) -> str:
    """The token in brackets with its neighbours, the prompt's end among them."""
    ids, at = np.concatenate([row.prompt, row.completion]), at + len(row.prompt)
    left, token, right = (lm.tokenizer.decode(part) for part in (ids[max(0, at - before) : at], ids[at : at + 1],
                                                                 ids[at + 1 : at + 1 + after]))  # fmt: skip
    return f"{left}⟦{token}⟧{right}".replace("\n", "⏎")


def heat_maps(
    found: Ratios, rollouts: Sequence[Rollout], trainer: Sequence[Floats32], lm: LM, most: int = 3
) -> tuple[dict[str, Any], ...]:
    """The answers that hold the largest differences, every token by the size of its own (full at a factor of 3)."""
    numbers = list(dict.fromkeys(number for _, number, _ in sorted(found.worst, reverse=True)))[:most]
    maps = []
    for number in numbers:
        row, gap = rollouts[number], trainer[number].astype(np.float64) - rollouts[number].sampler
        tokens = []
        for at, y in enumerate(row.completion[:SHOWN].tolist()):
            known = bool(np.isfinite(gap[at]) and row.counted[at])
            size = abs(float(gap[at])) if known else 0.0
            label = "unknown" if not known else LABELS[int(size > 0.1) + int(size > 1.0)]
            note = f"log ratio {gap[at]:+.3f}, engine {math.exp(row.sampler[at]):.3g}" if known else ""
            score = min(1.0, size / math.log(3))
            tokens.append({"text": lm.tokenizer.decode([y]), "score": score, "label": label, "note": note})
        maps.append({"title": f"{row.id}: sum of log-ratios {np.nansum(gap[row.counted]):+.2f}", "tokens": tokens})
    return tuple(maps)


def histogram(found: Ratios) -> dict[str, Any]:
    """Log-ratios of all tokens."""
    edges, counts = found.spread.histogram()
    return figures.histogram(edges, {"tokens": counts}, "log ratio, trainer over engine", yaxis={"type": "log"})


def _by_length(out: NDArray[np.bool_], length: Floats, bins: int = 8) -> dict[str, Any]:
    """Share of answers outside the band by length, in bins of about equally many."""
    order = np.argsort(length, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    x, y = [float(np.median(length[p])) for p in parts], [float(out[p].mean()) for p in parts]
    notes = [f"{len(p)} answers" for p in parts]
    return figures.lines({"outside the band": {"x": x, "y": y, "note": notes}}, "tokens of the answer",
                         "share of answers", yaxis={"rangemode": "tozero"})  # fmt: skip
