"""Branching factor: how many next tokens are effectively plausible along a model's own generations."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.declare import Count, Evidence, Paper, claim, probe
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.stats import cluster_mean
from plumbline.lab.tables import TableLM, sample_table
from plumbline.measure import figures
from plumbline.measure.shift.samples import BranchingArm, branching, exponential, generations, window_rows
from plumbline.measure.text import clip, items_of, range_of, share, undefined

NEEDS = (
    "Several temperature-1 samples per prompt from both models. Late positions only hold long generations: the curve"
    " stops where fewer than 10 prompts are left, and its rows give the share of samples still alive."
)
MINIMUM = 10


@probe(
    paper=Paper("How Alignment Shrinks the Generative Horizon", "Yang and Holtzman", 2025, arxiv="2506.17871"),
    says="The effective number of plausible next tokens along each model's own samples, and how much tuning shrank it.",
    differs=(
        "The headline takes the geometric mean over prompts; the paper's arithmetic mean is a part beside it.",
        "No truncation of the distribution (the paper's code uses min_p = 0.1): the full distribution is at hand.",
        "In the likelihood route a sample that ended before n is divided by its own length, not by n.",
    ),
    needs=("samples",),
    gives=("branching_factor_ratio", "branching_factor_base", "branching_factor_tuned", "branching_mean_base",
           "branching_mean_tuned", "branching_entropy_base",
           "branching_entropy_tuned", "branching_nll_base", "branching_nll_tuned", "sample_length_change"),
)  # fmt: skip
def branching_factor(comparison: Records, *, window: Count = 5, asymptotic: Count = 50, seed: int = 0) -> Finding:
    r"""BF of each arm and the ratio BASE / TUNED, from N samples per prompt.

    .. math:: \log BF_H(n) = \frac1n \sum_{t \le n} \operatorname{mean}_{i: len_i \ge t} H_t^i, \quad
              \log BF_L(n) = -\operatorname{mean}_i \frac1n \sum_{t \le n} \ell_t^i

    n is the 0.95 quantile of the sample lengths, at most the last step with more than 3 live samples. A prompt's
    log BF is log BF_H where n <= ``asymptotic`` and log BF_L beyond. Intervals resample prompts [P]; the ratio is
    paired by prompt on log BF.

    Args:
        comparison: records with ``samples``: entropy H and log-probability l of every step, in nats.
        window: tokens per point of the curve.
        asymptotic: length from which the likelihood of a sample estimates its entropy well.
        seed: of the intervals.
    """
    arms = {arm: branching(generations(comparison, arm), window=window, asymptotic=asymptotic) for arm in ("a", "b")}
    items = np.intersect1d(arms["a"].items, arms["b"].items)
    if len(items) < MINIMUM:
        why = "too few prompts with 4 samples or more from both models"
        return undefined("branching_factor_ratio", why, have=len(items), need=MINIMUM, what="prompts", needs=NEEDS)
    logs = {arm: found.log_bf[np.isin(found.items, items)] for arm, found in arms.items()}
    ratio = exponential(cluster_mean(logs["a"] - logs["b"], items, seed=seed))
    parts, value = _parts(arms, items, seed), ratio.value or 1.0
    found = Finding.of("branching_factor_ratio", ratio, sentence="")
    word = "narrower" if value >= 1 else "wider"
    sentence = (
        f"Along its own samples TUNED has {parts[1].value:.2f} plausible next tokens per step, "
        f"BASE {parts[0].value:.2f}: TUNED is {word} by a factor of "
        f"{max(value, 1 / value):.2f}; BASE / TUNED is {value:.3g}{range_of(found)}."
    )
    told = items_of(comparison)
    table = [
        {"id": told["id"].get(i, str(i)), "prompt": clip(told["prompt"].get(i, "")), "base": float(np.exp(a)),
         "tuned": float(np.exp(b)), "ratio": float(np.exp(a - b))}
        for i, a, b in sorted(zip(items.tolist(), logs["a"], logs["b"], strict=True), key=lambda r: r[2] - r[1])
    ]  # fmt: skip
    floored = sum(arm.floored for arm in arms.values())
    told_of = [f"{floored} log-probabilities were floored at ln 1e-12"] * bool(floored)
    if comparison.meta.get("same_tokenizer") is False:
        told_of.append("the tokenizers differ: tokens of unlike length are compared, read the ratio as per token")
    return Finding.of(
        "branching_factor_ratio", ratio, title="Branching factor, BASE / TUNED", sentence=sentence, unit="ratio",
        needs=NEEDS, parts=parts, table=tuple(table[:200]), figure=_curve(arms, window, seed),
        warnings=tuple(told_of),
    )  # fmt: skip


def _parts(arms: dict[str, BranchingArm], items: Any, seed: int) -> tuple[Finding, ...]:
    told = (
        ("branching_factor", "log_bf", True, "plausible next tokens per step (geometric mean over prompts)"),
        ("branching_mean", "log_bf", False, "plausible next tokens per step (arithmetic mean over prompts)"),
        ("branching_entropy", "log_entropy", True, "plausible next tokens per step by the entropies"),
        ("branching_nll", "log_nll", True, "plausible next tokens per step by the likelihood of the samples"),
    )
    parts = []
    for name, column, geometric, words in told:
        for arm, model in (("a", "base"), ("b", "tuned")):
            own = getattr(arms[arm], column)[np.isin(arms[arm].items, items)]
            e = cluster_mean(own if geometric else np.exp(own), items, seed=seed)
            e = exponential(e) if geometric else e
            sentence = f"{model.upper()} has {e.value:.3g} {words}."
            parts.append(Finding.of(f"{name}_{model}", e, sentence=sentence, unit="tokens"))
    a, b = (arms[arm].length[np.isin(arms[arm].items, items)] for arm in ("a", "b"))
    e = cluster_mean(b - a, items, seed=seed)
    sentence = f"TUNED's samples have {b.mean():.1f} tokens on average, BASE's {a.mean():.1f} ({e.value:+.1f})."
    return (*parts, Finding.of("sample_length_change", e, sentence=sentence, unit="tokens"))


def _curve(arms: dict[str, BranchingArm], window: int, seed: int) -> dict[str, Any]:
    series = {}
    for arm, name, color in (("a", "BASE", figures.BASE), ("b", "TUNED", figures.TUNED)):
        rows = window_rows(arms[arm], window=window, seed=seed)
        notes = [f"{share(r['live'])} of samples alive, {r['prompts']} prompts" for r in rows]
        line = {key: [r[row] for r in rows] for key, row in (("x", "from_token"), ("y", "branching"))}
        if all(r["low"] is not None for r in rows):
            line |= {key: [r[key] for r in rows] for key in ("low", "high")}
        series[name] = {**line, "note": notes, "color": color}
    return figures.lines(series, "token of the sample", "plausible next tokens", yaxis={"rangemode": "tozero"})


@claim(
    branching_factor,
    "The branching factor is the effective number of choices: exp of a source's entropy rate by both routes, and it"
    " shrinks when the distribution is sharpened.",
    cost="cpu:3s",
)
def entropy_rate_is_found() -> Evidence:
    base = TableLM.random(10, scale=1.0, seed=5)
    truth, measured, starts = float(np.exp(base.entropy_rate())), {}, np.arange(20) % 10
    for name, tuned in (("sharpened", base.at_temperature(0.3)), ("same", base)):
        samples = [sample_table(m, arm, starts, samples=8, length=200, seed=s)
                   for s, (m, arm) in enumerate(((base, "a"), (tuned, "b")))]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            found = branching_factor(Records.of(folder, samples=pd.concat(samples))).flat()
        measured[f"ratio_{name}"] = found["branching_factor_ratio"].value
    measured |= {f"{route}_route": found[f"branching_{route}_base"].value for route in ("entropy", "nll")}
    near = all(abs(measured[f"{route}_route"] / truth - 1) < 0.03 for route in ("entropy", "nll"))
    measured["truth"] = truth
    control = abs(measured["ratio_same"] - 1) < 0.03  # the same model twice is not narrower
    return Evidence(holds=near and measured["ratio_sharpened"] > 1.5, measured=measured, control=control)
