"""Token distribution shift: at which positions the tuned model decodes differently from its base."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import numpy as np

from plumbline.core.declare import Count, Evidence, Paper, claim, probe
from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.seeds import rng
from plumbline.lab.tables import log_normalised, token_table, vocab_table
from plumbline.measure.shift.positions import contexts, gather, is_stylistic, most_shifted, sources_of
from plumbline.measure.shift.shift_parts import examples, position_figure, shift_parts
from plumbline.measure.text import share, undefined

NEEDS = (
    "Responses of TUNED, scored by both models on the same ids; a chat template that BASE never saw makes the first"
    " positions look shifted, so they are reported apart."
)
MINIMUM = 20


@probe(
    paper=Paper(
        "The Unlocking Spell on Base LLMs: Rethinking Alignment via In-Context Learning", "Lin et al.", 2023,
        arxiv="2312.01552",
    ),
    says="Sorts the positions of TUNED's responses by the rank that BASE gives the token: kept, marginal, shifted.",
    differs=(
        "Intervals resample prompts; the paper reports none.",
        "The stylistic lexicon is ours and replaceable; the paper shows examples.",
    ),
    needs=("tokens",),
    gives=("shifted", "unshifted", "marginal", "shifted_by_prompt", "base_rank_within_5", "shifted_first_5",
           "shifted_later", "shifted_end_token", "shifted_argmax", "stylistic_share", "kl_by_position"),
)  # fmt: skip
def token_shift(
    comparison: Records, *, marginal: Count = 3, stylistic: Callable[[str], bool] = is_stylistic, seed: int = 0
) -> Finding:
    r"""Shares of response positions by the base rank of the token that TUNED wrote.

    .. math:: r_t = 1 + \#\{v : p_A(v \mid x, o_{<t}) > p_A(o_t \mid x, o_{<t})\}

    unshifted: r = 1; marginal: 2 <= r <= ``marginal``; shifted: r > ``marginal``. A is BASE, o is TUNED's greedy
    response (completions that the user gave, where there are no responses). One value per position [N]; intervals
    resample prompts [G].

    Args:
        comparison: records with ``tokens``; ``items`` and ``outputs`` add categories, prompts and end tokens.
        marginal: last rank that counts as marginal.
        stylistic: token text -> whether it is a matter of style.
        seed: of the intervals.
    """
    sources = sources_of(comparison)
    g = gather(comparison, sources=sources, marginal=marginal, stylistic=stylistic)
    n = int(g.sums.total("n"))
    if n < MINIMUM:
        return undefined("shifted", "too few response positions", have=n, need=MINIMUM, what="positions", needs=NEEDS)
    parts = shift_parts(comparison, g, seed)
    by_name = {p.name: p for p in parts}
    off = g.sums.total("off") / n
    warnings = [f"{g.infinite} positions have an infinite KL and are left out of its means"] * bool(g.infinite)
    if off > 0.01:
        warnings.append(
            f"{share(off)} of the tokens are not TUNED's own first choice (given or sampled text): read shifted_argmax"
        )
    rows = most_shifted(comparison, g.tokens)
    places = contexts(comparison, {r["token_id"]: None for r in rows}, sources=sources, marginal=marginal)
    most = ", ".join(repr(r["token"]) for r in rows[:5])
    sentence = (
        f"{share(g.sums.total('shifted') / n)} of {n:,} response positions are shifted (BASE ranks TUNED's token below "
        f"{marginal}), {share(by_name['unshifted'].value)} are BASE's own first choice"
        + (f"; the tokens most typical of the shift are {most}." if most else ".")
    )
    return Finding.of(
        "shifted", g.sums.mean("shifted", proportion=True, seed=seed), title="Shifted positions", sentence=sentence,
        unit="share of positions", needs=NEEDS, parts=parts, warnings=tuple(warnings), figure=position_figure(g),
        table=tuple({**r, "contexts": places[r["token_id"]]} for r in rows),
        texts=examples(comparison, g, sources, marginal),
    )  # fmt: skip


@claim(
    token_shift,
    "Tuning moves few positions, and it moves them early: a style boost that decays along the response shows as a KL"
    " that falls with position, and the style tokens head the table.",
    cost="cpu:3s",
)
def style_is_found() -> Evidence:
    style, vocab, prompts, length = [3, 7, 11, 19, 23], 40, 200, 40
    base = log_normalised(1.5 * rng(1, "base").standard_normal((prompts, length, vocab)))
    found = {}
    for name, decay in (("decaying", 5.0), ("constant", np.inf)):
        boost = np.where(np.isin(np.arange(vocab), style), 5.0, 0.0) * np.exp(-np.arange(length) / decay)[:, None]
        tuned = log_normalised(base + boost)
        ids = np.concatenate([np.zeros((prompts, 1), int), tuned.argmax(-1)], 1)  # TUNED's greedy responses
        with tempfile.TemporaryDirectory() as folder:
            records = Records.of(folder, tokens=token_table(ids, base, tuned), vocab=vocab_table(vocab))
            found[name] = token_shift(records)
    tau = {name: f.flat()["kl_by_position"].value for name, f in found.items()}
    hits = len(set(style) & {row["token_id"] for row in found["decaying"].table[:5]})
    measured = {"tau": tau["decaying"], "style_tokens_in_top_5": hits, "tau_of_constant_boost": tau["constant"]}
    return Evidence(holds=tau["decaying"] < -0.5 and hits == 5, measured=measured, control=tau["constant"] > -0.5)
