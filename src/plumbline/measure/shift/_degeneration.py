"""Degeneration: outputs that loop, repeat, stop at once or never end, in both models, prompt by prompt."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from plumbline.core.declare import Count, Evidence, Paper, claim, probe
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.seeds import rng
from plumbline.kernels.stats import cluster_bootstrap, paired_difference
from plumbline.lab.tables import item_table, output_table
from plumbline.measure import figures
from plumbline.measure.shift.outputs import COLUMNS, OutputSums, gather, worst_rows
from plumbline.measure.text import range_of, share, undefined

NEEDS = (
    "Outputs that the models generated themselves (not given completions, not choices). A cap on new tokens that is"
    " too low makes long answers look unfinished."
)
MINIMUM = 10
TOLD = {
    "looping": ("outputs that loop", "share of outputs", -1),
    "early_stop": ("outputs that are empty or stop at once", "share of outputs", -1),
    "unfinished": ("outputs that do not end by themselves", "share of outputs", -1),
    "rep_1": ("repeated tokens", "share of tokens", -1), "rep_2": ("repeated 2-grams", "share of 2-grams", -1),
    "rep_3": ("repeated 3-grams", "share of 3-grams", -1), "rep_4": ("repeated 4-grams", "share of 4-grams", -1),
    "output_tokens": ("tokens per output", "tokens", 0),
}  # fmt: skip


@probe(
    paper=Paper("Neural Text Generation with Unlikelihood Training", "Welleck et al.", 2019, arxiv="1908.04319"),
    says="How often outputs loop, repeat themselves, stop at once or run into the length limit, and how that changed.",
    differs=(
        "The measures only (rep-n; distinct-n after Li et al., 2016); the paper trains against repetition.",
        "A loop is 3 or more equal blocks in a row of at least 12 tokens together: ours, as papers judge by eye.",
        "Without a shared tokenizer words are counted, not tokens.",
    ),
    needs=("outputs",),
    gives=(*(f"{c}_{x}" for c in TOLD for x in ("change", "base", "tuned")), "distinct_1_base", "distinct_1_tuned",
           "distinct_2_base", "distinct_2_tuned"),
)  # fmt: skip
def degeneration(comparison: Records, *, loop: Count = 12, short: Count = 2, seed: int = 0) -> Finding:
    r"""Shares of looping, early-stopping and unfinished outputs and rep-n of both arms, over outputs [N].

    .. math:: rep_n = 1 - \frac{|\{\text{distinct n-grams}\}|}{|\{\text{n-grams}\}|}, \quad
              distinct_n = \frac{|\{\text{distinct n-grams of all outputs}\}|}{|\{\text{n-grams of all outputs}\}|}

    rep-n is averaged over outputs with two n-grams or more. Changes are paired by prompt; their intervals resample
    prompts.

    Args:
        comparison: records with ``outputs``.
        loop: tokens that a loop (3 or more equal blocks in a row) must span to count.
        short: an output of at most this many tokens beside the end token stops early.
        seed: of the intervals.
    """
    arms = gather(comparison, loop=loop, short=short)
    shared = np.intersect1d(arms["a"].sums.items, arms["b"].sums.items)
    if len(shared) < MINIMUM:
        why = "too few outputs that both models generated"
        return undefined("looping_change", why, have=len(shared), need=MINIMUM, what="prompts", needs=NEEDS)
    parts = [part for column in TOLD for part in _column(column, arms, shared, seed)]
    by_name = {p.name: p for p in parts}
    head = by_name.pop("looping_change")
    share_of = {name: share(by_name[name].value) for name in by_name if by_name[name].unit == "share of outputs"}
    rows = worst_rows(comparison, arms)
    worst = f" The longest loop is in prompt {rows[0]['id']} ({rows[0]['arm']})." if rows else ""
    sentence = (
        f"{share_of['looping_tuned']} of TUNED's outputs loop, {share_of['looping_base']} of BASE's (change "
        f"{100 * head.value:+.2g} points{range_of(head, '{:+.2%}')}); {share_of['early_stop_tuned']} stop early "
        f"(BASE {share_of['early_stop_base']}) and {share_of['unfinished_tuned']} hit the length limit "
        f"(BASE {share_of['unfinished_base']}).{worst}"
    )
    more: dict[str, Any] = {"sentence": sentence, "needs": NEEDS, "table": tuple(rows), "figure": _bars(by_name)}
    return Finding(**{**vars(head), **more, "parts": (*by_name.values(), *_distinct(arms))})


def _column(column: str, arms: dict[str, OutputSums], shared: Any, seed: int) -> list[Finding]:
    words, unit, direction = TOLD[column]
    weight = COLUMNS[column]
    found, rows = [], {arm: g.sums.of(column, weight, items=shared) for arm, g in arms.items()}
    for arm, name in (("a", "base"), ("b", "tuned")):
        s = rows[arm][rows[arm][:, 1] > 0]
        e = cluster_bootstrap(s, proportion=unit == "share of outputs", seed=seed)
        told = f"{e.value:.3g}" if e.value is not None else "undefined (too short)"
        sentence = f"{name.upper()}: {words} {told}."
        found.append(Finding.of(f"{column}_{name}", e, unit=unit, direction=direction, sentence=sentence))
    both = (rows["a"][:, 1] > 0) & (rows["b"][:, 1] > 0)
    a, b = (r[both, 0] / r[both, 1] for r in (rows["a"], rows["b"]))
    e = paired_difference(a, b, shared[both], seed=seed)
    told = "cannot be compared" if e.value is None else f"change by {e.value:+.3g}"
    more: dict[str, Any] = {"title": f"Change of {words}", "sentence": f"{words.capitalize()} {told}."}
    return [*found, Finding.of(f"{column}_change", e, unit=unit, direction=direction, **more)]


def _distinct(arms: dict[str, OutputSums]) -> list[Finding]:
    found = []
    for n in (1, 2):
        for arm, name in (("a", "base"), ("b", "tuned")):
            value, total = arms[arm].distinct(n), arms[arm].grams[n]
            told = f"{name.upper()}: {share(value)} of all {n}-grams in its outputs are distinct."
            note = ("falls with the amount of text: compare arms of like length only; no interval",)
            found.append(Finding(name=f"distinct_{n}_{name}", value=value, sentence=told, n_items=total, warnings=note,
                                 direction=1, unit="share of n-grams"))  # fmt: skip
    return found


def _bars(parts: dict[str, Finding]) -> dict[str, Any]:
    names = ("looping", "early_stop", "unfinished", "rep_1", "rep_2", "rep_3", "rep_4")
    series = {}
    for arm, color in (("base", figures.BASE), ("tuned", figures.TUNED)):
        y = [parts[f"{n}_{arm}"].value or 0.0 for n in names]
        ends = [parts[f"{n}_{arm}"].interval or (v, v) for n, v in zip(names, y, strict=True)]
        series[arm.upper()] = {"y": y, "low": [e[0] for e in ends], "high": [e[1] for e in ends], "color": color}
    return figures.bars([n.replace("_", " ") for n in names], series, "", "share")


@claim(
    degeneration,
    "Looping and repetition tell a broken decoder from a sound one, where the mean length cannot.",
    cost="cpu:1s",
)
def loops_are_found() -> Evidence:
    n, length = 60, 48
    sound = rng(0, "sound").integers(0, 400, (n, length))
    broken = sound.copy()
    broken[:12, 12:] = np.tile(broken[:12, 9:12], (1, 12))  # one output in five falls into a loop of 3 tokens
    arms = {"a": {"ids": sound, "text": ["x"] * n}, "b": {"ids": broken, "text": ["x"] * n}}
    with tempfile.TemporaryDirectory() as folder:
        found = degeneration(Records.of(folder, items=item_table(n), outputs=output_table(arms))).flat()
    keys = ("looping_base", "looping_tuned", "rep_4_change", "output_tokens_change")
    measured = {key: found[key].value for key in keys}
    holds = measured["looping_base"] == 0 and measured["looping_tuned"] == 0.2 and measured["rep_4_change"] > 0.05
    return Evidence(holds=holds, measured=measured, control=measured["output_tokens_change"] == 0)
