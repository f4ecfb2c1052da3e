"""Exposure gap: how much surer a model is on its own prefixes than reference text says it should be."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.declare import Count, Evidence, Paper, claim, probe
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.stats import Estimate
from plumbline.lab.tables import TableLM, pair_records, sample_table
from plumbline.measure.shift.exposure import curve, difference, free_sums, teacher_sums
from plumbline.measure.text import range_of, undefined

NEEDS = (
    "Reference text or completions of the kind that the prompts ask for, and temperature-1 samples of both models;"
    " text of another kind than the samples makes the gap a difference of topics."
)
MINIMUM, PROMPTS = 100, 2


@probe(
    paper=Paper(
        "Why Exposure Bias Matters: An Imitation Learning Perspective of Error Accumulation in Language Generation",
        "Arora et al.", 2022, arxiv="2204.01171",
    ),
    says="Teacher-forced against free-running negative log-likelihood by position, for both models.",
    differs=(
        "The paper's accumulated error needs the true process; without one we report the gap in likelihood only.",
        "Texts and samples need not share prompts: the interval treats them as independent (square and add).",
    ),
    needs=("tokens", "samples"),
    gives=("exposure_gap_change", "exposure_gap_base", "exposure_gap_tuned", "nll_teacher_base", "nll_teacher_tuned",
           "nll_free_base", "nll_free_tuned"),
)  # fmt: skip
def exposure_gap(comparison: Records, *, limit: Count = 512, seed: int = 0) -> Finding:
    r"""Gap between reading and writing, in nats per token, over positions [N] of texts and steps of samples.

    .. math:: gap = \operatorname{mean}_{y \sim text} [-\log p(y_t | y_{<t})]
              - \operatorname{mean}_{y \sim p} [-\log p(y_t | y_{<t})]

    A model that is the source of the text has gap 0; a model that is surer of its own words than of real ones has a
    gap above 0. The figure has all four readings by position.

    Args:
        comparison: records with ``tokens`` of source "text" or "completion", and ``samples``.
        limit: positions counted per text, so that long documents do not stand for what samples never reach.
        seed: of the intervals.
    """
    teacher, free = teacher_sums(comparison, limit), free_sums(comparison, limit)
    n = int(teacher.total("n"))
    if n < MINIMUM or min(len(free[arm].items) for arm in "ab") < PROMPTS:
        why = "it compares reference text with samples; pass --text or completions, and prompts to sample from"
        return undefined("exposure_gap_change", why, have=n, need=MINIMUM, what="positions of text", needs=NEEDS)
    parts: list[Finding] = []
    gaps: dict[str, Estimate] = {}
    for arm, name in (("a", "base"), ("b", "tuned")):
        read, wrote = teacher.mean(arm, seed=seed), free[arm].mean("nll", seed=seed)
        gaps[name] = difference(read, wrote)
        told = (
            (f"nll_teacher_{name}", read, f"{name.upper()} on reference text"),
            (f"nll_free_{name}", wrote, f"{name.upper()} on its own samples"),
            (f"exposure_gap_{name}", gaps[name], f"{name.upper()} reading less writing"),
        )
        for key, e, words in told:
            shown = "undefined" if e.value is None else f"{e.value:.4g} nats per token"
            parts.append(Finding.of(key, e, unit="nats per token", sentence=f"{words}: {shown}."))
    # the two readings share their texts, the two writings do not share samples: independence is the safe side
    head = Finding.of("exposure_gap_change", difference(gaps["tuned"], gaps["base"]), sentence="")
    base, tuned = gaps["base"].value or 0.0, gaps["tuned"].value or 0.0
    sentence = (
        f"TUNED is {abs(tuned):.3g} nats per token {'more' if tuned > 0 else 'less'} surprised by reference text than "
        f"by its own samples, BASE {base:+.3g}: the gap changes by {head.value or 0:+.3g}{range_of(head)}."
    )
    more: dict[str, Any] = {"title": "Change of the exposure gap", "unit": "nats per token", "direction": -1}
    more |= {"sentence": sentence, "needs": NEEDS, "parts": tuple(parts), "figure": curve(teacher, free, seed)}
    return Finding(**{**vars(head), **more})


@claim(
    exposure_gap,
    "A model that is the source of the text is as surprised by it as by its own samples; an overconfident one finds"
    " real text far more surprising than its own.",
    cost="cpu:2s",
)
def overconfidence_opens_a_gap() -> Evidence:
    source = TableLM.random(20, scale=1.0, seed=11)
    tuned, starts = source.at_temperature(0.5), np.arange(40) % 20
    ids = source.sample(starts, 80, seed=12)
    samples = [sample_table(m, arm, starts, samples=4, length=80, seed=s)
               for s, (m, arm) in enumerate(((source, "a"), (tuned, "b")))]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        records = pair_records(folder, source, tuned, ids, source="text", samples=pd.concat(samples))
        found = exposure_gap(records).flat()
    measured = {name: found[f"exposure_gap_{name}"].value for name in ("base", "tuned")}
    return Evidence(holds=measured["tuned"] > 0.5, measured=measured, control=abs(measured["base"]) < 0.05)
