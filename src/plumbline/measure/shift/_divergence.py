"""Divergence: KL both ways, JS, agreement and the change of label probability, with intervals and with tails."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from plumbline.core.declare import Count, Evidence, claim, probe
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.stats import cluster_bootstrap
from plumbline.lab.tables import TableLM, pair_records, token_table
from plumbline.measure import figures
from plumbline.measure.shift.divergences import (
    KL_ROWS,
    QUANTILES,
    Divergences,
    extreme_rows,
    gather,
    mean_rows,
    perplexity_rows,
    quantile_interval,
    worst_prompts,
)
from plumbline.measure.text import range_of, undefined

NEEDS = (
    "Positions scored by both models with one tokenizer. Perplexity and Δp mean what people take them to mean on"
    " reference text only (--text or completions): on TUNED's own responses TUNED is flattered."
)
MINIMUM = 20
TAIL = 10.0  # a 99.9% quantile this many times the mean is worth naming


@probe(
    paper=None,
    says="How far TUNED's next-token distributions are from BASE's: the mean, and the tail that a mean hides.",
    differs=(
        "Standard divergences. Rows are named as llama.cpp's --kl-divergence table names them, Q being TUNED.",
        "Δp is a probability here (llama.cpp prints percent); intervals resample prompts, not tokens.",
    ),
    needs=("tokens",),
    gives=("kl_mean", "kl_reverse_mean", "js_mean", "tv_mean", "top1_agreement", "ppl_tuned", "ppl_base",
           "ln_ppl_correlation", "ln_ppl_ratio", "ppl_ratio", "ppl_difference", "delta_p_mean", "delta_p_rms",
           "kl_max", "kl_min", "delta_p_max", "delta_p_min",
           *(f"kl_{q[0]}" for q in KL_ROWS), *(f"delta_p_{q[0]}" for q in QUANTILES)),
)  # fmt: skip
def divergence(comparison: Records, *, worst: Count = 20, seed: int = 0) -> Finding:
    r"""Mean and quantiles over scored positions [N] of

    .. math:: KLD = \sum_v p_A \ln\frac{p_A}{p_B}, \quad \Delta p = p_B(y) - p_A(y)

    with A = BASE, B = TUNED, y the actual token; and KL(B||A), JS, total variation, agreement of the first choices,
    perplexities. Intervals of means resample prompts [G]; those of KL quantiles are Woodruff's.

    Args:
        comparison: records with ``tokens``.
        worst: prompts shown by largest and by mean KL.
        seed: of the intervals.
    """
    found = gather(comparison)
    n = found.kl.n
    if n < MINIMUM:
        return undefined("kl_mean", "too few scored positions", have=n, need=MINIMUM, what="positions", needs=NEEDS)
    rows, bounded = worst_prompts(comparison, found, worst), quantile_interval(comparison, found.kl, seed)
    mean = Finding.of("kl_mean", found.sums.mean("kl", seed=seed), sentence="")
    tail, top = bounded["p999"].value or 0.0, rows[0]
    told = f"Mean KL(BASE||TUNED) is {mean.value:.4g} nats{range_of(mean)} over {n:,} positions; "
    scale, peak = max(mean.value or 0.0, 1e-9), found.kl.maximum
    if peak > 0.1 and (tail > TAIL * scale or peak > 10 * TAIL * scale):
        told += (
            f"the mean hides a tail: one position in 1,000 is above {tail:.3g} nats and the largest is {peak:.3g}, in "
            f"prompt {top['id']} ({top['prompt'][:80]}); read the worst prompts."
        )
    else:
        told += f"the tail is in proportion (99.9%: {tail:.3g}, largest {peak:.3g} in prompt {top['id']})."
    lost = (f"{found.undefined} positions have an infinite KL or log-probability and are left out",)
    edges, counts = found.kl.histogram()
    return Finding.of(
        "kl_mean", found.sums.mean("kl", seed=seed), title="Mean    KLD", sentence=told, unit="nats", direction=-1,
        needs=NEEDS, table=tuple(rows), warnings=lost if found.undefined else (),
        parts=(*mean_rows(comparison, found, seed), *_kl_rows(found, bounded), *_reference_rows(found, seed)),
        figure=figures.histogram(edges, {"positions": counts}, "KL(BASE||TUNED), nats", yaxis={"type": "log"}),
    )  # fmt: skip


def _kl_rows(found: Divergences, bounded: dict[str, Any]) -> list[Finding]:
    rows = []
    for row in extreme_rows(found.kl, "kl", "KLD", KL_ROWS, "nats"):
        e = bounded.get(row.name.removeprefix("kl_"))
        if e is not None:
            row = Finding.of(row.name, e, title=row.title, sentence=row.sentence, unit="nats", direction=-1)
        rows.append(row)
    return rows


def _reference_rows(found: Divergences, seed: int) -> tuple[Finding, ...]:
    reference = found.reference
    given = reference is found.given
    kind = "reference text" if given else "TUNED's own responses, which flatters TUNED: pass --text for a fair one"
    mean, rms = reference.sums.mean("dp", seed=seed), reference.sums.of("dp2", "n")
    told = f"The actual token's probability changes by {mean.value:+.4g} on average, on {kind}."
    edges, counts = reference.delta_p.histogram()
    figure = figures.histogram(edges, {"positions": counts}, "Δp of the actual token", yaxis={"type": "log"})
    root = cluster_bootstrap(rms, lambda s: np.sqrt(s[..., 0] / s[..., 1]), n_items=reference.delta_p.n, seed=seed)
    unit = "probability"
    return (
        *perplexity_rows(reference, kind, seed),
        Finding.of("delta_p_mean", mean, title="Mean    Δp", sentence=told, unit=unit, direction=1, figure=figure),
        *extreme_rows(reference.delta_p, "delta_p", "Δp", QUANTILES, unit),
        Finding.of("delta_p_rms", root, title="RMS Δp", unit=unit, sentence=f"RMS Δp is {root.value:.4g} on {kind}."),
    )


@claim(
    divergence,
    "A mean KL hides a rare break that the tail shows: two tuned models of equal mean KL, one changed a little"
    " everywhere and one broken at one position in 500, are told apart by the 99.9% quantile.",
    cost="cpu:5s",
)
def tail_is_seen() -> Evidence:
    base = TableLM.random(30, scale=1.0, seed=3)
    ids = base.sample(np.arange(100) % 30, 100, seed=4)
    la = base.along(ids)
    broken = la.copy()
    at = (np.arange(20) * 5, np.arange(20) * 4)
    broken[at] = la[at][:, ::-1] * 6
    broken -= np.log(np.exp(broken).sum(-1, keepdims=True))
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        worst = divergence(Records.of(f"{folder}/broken", tokens=token_table(ids, la, broken))).flat()
        low, high = 0.2, 1.0  # a temperature with the same mean KL, by bisection
        for _ in range(9):
            t = (low + high) / 2
            even = divergence(pair_records(f"{folder}/even", base, base.at_temperature(t), ids)).flat()
            low, high = (t, high) if even["kl_mean"].value > worst["kl_mean"].value else (low, t)
    for name, f in (("even", even), ("broken", worst)):
        measured |= {f"{name}_mean": f["kl_mean"].value, f"{name}_p999": f["kl_p999"].value}
    control = abs(measured["even_mean"] / measured["broken_mean"] - 1) < 0.1  # the mean cannot tell them apart
    return Evidence(holds=measured["broken_p999"] > 10 * measured["even_p999"], measured=measured, control=control)
