"""The parts of the token-shift finding: shares, categories, the curve along the response, example heat maps."""

from __future__ import annotations

from typing import Any

import numpy as np

from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.stats import cluster_bootstrap, cluster_mean, kendall_tau_b
from plumbline.measure import figures
from plumbline.measure.shift.positions import BUCKETS, FIRST, Gathered, category
from plumbline.measure.text import clip, heat_maps, items_of, share, tags_of, undefined


def shift_parts(comparison: Records, g: Gathered, seed: int) -> tuple[Finding, ...]:
    """Every share with its interval, the table by category, and the KL along the response."""
    told = (
        ("unshifted", "unshifted", "n", "of positions carry BASE's own first choice"),
        ("marginal", "marginal", "n", "of positions carry one of BASE's next choices"),
        ("base_rank_within_5", "within_5", "n", "of positions carry one of BASE's first five choices"),
        ("shifted_first_5", "first_shifted", "first", f"of the first {FIRST} positions of a response are shifted"),
        ("shifted_later", "later_shifted", "later", f"of the positions after the first {FIRST} are shifted"),
        ("shifted_end_token", "end_shifted", "end", "of TUNED's end tokens are shifted: BASE would have gone on"),
        ("shifted_argmax", "best_shifted", "n", "of positions are shifted when TUNED's first choice is ranked instead"),
        ("stylistic_share", "styled_shifted", "shifted", "of shifted positions are greetings, hedges, list marks, ..."),
    )
    found = []
    for name, column, weight, words in told:
        if g.sums.total(weight):
            estimate = g.sums.mean(column, weight, proportion=True, seed=seed)
            sentence = f"{share(estimate.value)} {words}."
            found.append(Finding.of(name, estimate, sentence=sentence, unit="share of positions"))
        else:
            found.append(undefined(name, f"no such positions (share that {words})"))
    return (*found, _by_prompt(comparison, g, seed), _kl_by_position(g, seed))


def _by_prompt(comparison: Records, g: Gathered, seed: int) -> Finding:
    sums, items = g.sums.of("shifted", "unshifted", "n", "kl", "kl_n"), g.sums.items
    estimate = cluster_mean(sums[:, 0] / sums[:, 2], items, seed=seed)
    rows: list[dict[str, Any]] = []
    for tag, members in tags_of(items_of(comparison)).items():
        s = sums[np.isin(items, members)]
        if len(s):
            e = cluster_bootstrap(s[:, [0, 2]], n_items=int(s[:, 2].sum()), proportion=True, seed=seed)
            row = {"category": tag, "prompts": len(s), "positions": int(s[:, 2].sum()), "shifted": e.value}
            row |= {"low": e.low, "high": e.high, "unshifted": s[:, 1].sum() / s[:, 2].sum()}
            rows.append({**row, "kl_tuned_base": s[:, 3].sum() / max(s[:, 4].sum(), 1)})
    rows.sort(key=lambda r: -r["shifted"])
    most = f" Most shifted category: {rows[0]['category']} ({share(rows[0]['shifted'])})." if rows else ""
    sentence = f"The mean prompt has {share(estimate.value)} of its positions shifted.{most}"
    return Finding.of("shifted_by_prompt", estimate, sentence=sentence, unit="share of positions", table=tuple(rows))


def _bucket_rows(g: Gathered, seed: int) -> list[dict[str, Any]]:
    rows = []
    for b, name in enumerate(BUCKETS):
        n = g.buckets.total(f"n_{b}")
        if n:
            kl = g.buckets.mean(f"kl_{b}", f"kl_n_{b}", seed=seed)
            row = {"position": name, "positions": int(n), "prompts": kl.n_clusters, "kl_tuned_base": kl.value}
            row |= {"low": kl.low, "high": kl.high, "base_probability": g.buckets.total(f"p_{b}") / n}
            row |= {"shifted": g.buckets.total(f"shifted_{b}") / n, "marginal": g.buckets.total(f"marginal_{b}") / n}
            rows.append(row)
    return rows


def _kl_by_position(g: Gathered, seed: int) -> Finding:
    rows = _bucket_rows(g, seed)
    tau = kendall_tau_b(np.arange(len(rows)), [r["kl_tuned_base"] for r in rows]) if len(rows) > 2 else None
    first, last = (r["kl_tuned_base"] for r in (rows[0], rows[-1]))
    ends = f"{first:.3f} nats at the first position and {last:.3f} at {rows[-1]['position']}"
    trend = "" if tau is None else f" (Kendall's tau with position {tau:+.2f}: below 0 the shift is early, as style is)"
    series = {"x": [r["position"] for r in rows], "y": [r["kl_tuned_base"] for r in rows]}
    if all(r["low"] is not None for r in rows):
        series |= {"low": [r["low"] for r in rows], "high": [r["high"] for r in rows]}
    note = [f"{r['positions']:,} positions, {share(r['shifted'])} shifted" for r in rows]
    category_axis = {"type": "category"}
    return Finding(
        name="kl_by_position", title="KL(TUNED||BASE) along the response", value=tau, unit="Kendall's tau",
        sentence=f"KL(TUNED||BASE) is {ends}{trend}.", n_items=int(g.sums.total("n")), n_clusters=len(g.sums.items),
        table=tuple(rows), warnings=("a rank correlation over fixed buckets: no interval",),
        figure=figures.lines(
            {"KL(TUNED||BASE)": {**series, "note": note}}, "position in the response", "nats", xaxis=category_axis
        ),
    )  # fmt: skip


def position_figure(g: Gathered) -> dict[str, Any]:
    """Stacked shares of the three categories per bucket of position."""
    seen = [b for b in range(len(BUCKETS)) if g.buckets.total(f"n_{b}")]
    n, shifted, marginal = (np.array([g.buckets.total(f"{c}_{b}") for b in seen]) for c in ("n", "shifted", "marginal"))
    shares = {"unshifted": (n - shifted - marginal) / n, "marginal": marginal / n, "shifted": shifted / n}
    colors = {"unshifted": figures.BASE, "marginal": figures.OTHER, "shifted": figures.BAD}
    notes = [f"{int(k):,} positions" for k in n]
    series = {name: {"y": y, "color": colors[name], "note": notes} for name, y in shares.items()}
    names = [BUCKETS[b] for b in seen]
    axis = {"type": "category"}
    return figures.bars(names, series, "position in the response", "share of positions", stacked=True, xaxis=axis)


def examples(comparison: Records, g: Gathered, sources: tuple[str, ...], marginal: int) -> tuple[Any, ...]:
    """Heat maps of six responses: the three most shifted, two in the middle, the least shifted."""
    sums, items = g.sums.of("shifted", "n"), g.sums.items
    order = np.argsort(-(sums[:, 0] / sums[:, 1]), kind="stable")
    long = sums[order, 1] >= min(8, np.median(sums[:, 1]))
    order = order[long]
    middle = len(order) // 2
    chosen = dict.fromkeys([*order[:3], *order[middle : middle + 2], *order[-1:]])
    told = items_of(comparison)
    titles = {}
    for i in chosen:
        row = told.loc[int(items[i])] if int(items[i]) in told.index else None
        name = f"item {items[i]}" if row is None else f"{row['id']}: {clip(row['prompt'], 100)}"
        titles[int(items[i])] = f"{name} ({share(sums[i, 0] / sums[i, 1])} shifted)"
    return heat_maps(comparison, titles, lambda rank: category(rank, marginal), sources)
