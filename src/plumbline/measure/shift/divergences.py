"""What the divergence probe sums per position, and the rows of llama.cpp's ``--kl-divergence`` table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plumbline.core.finding import Finding
from plumbline.kernels.records import Records
from plumbline.kernels.stats import Estimate, cluster_bootstrap
from plumbline.measure.text import clip, context, items_of, outputs_of, rows_of, share, tags_of, undefined
from plumbline.measure.totals import Distribution, Floats, ItemSums

COLUMNS = ["item", "source", "pos", "logp_a", "logp_b", "kl_ab", "kl_ba", "js", "tv", "argmax_a", "argmax_b"]
QUANTILES = (("p999", "99.9%", 0.999), ("p99", "99.0%", 0.99), ("p95", "95.0%", 0.95), ("p90", "90.0%", 0.9),
             ("p75", "75.0%", 0.75), ("median", "Median", 0.5), ("p25", "25.0%", 0.25), ("p10", "10.0%", 0.1),
             ("p5", " 5.0%", 0.05), ("p1", " 1.0%", 0.01), ("p01", " 0.1%", 0.001))  # fmt: skip
KL_ROWS = tuple(q for q in QUANTILES if q[0] not in ("p75", "p25"))  # llama.cpp has these two for Δp only
BOUNDED = ("median", "p90", "p99", "p999")  # quantiles of the KL that get an interval


@dataclass
class Reference:
    """Sums of label log-probabilities over one kind of text."""

    sums: ItemSums = field(default_factory=ItemSums)
    delta_p: Distribution = field(default_factory=Distribution)

    def add(self, item: Any, logp_a: Floats, logp_b: Floats) -> None:
        a, b, dp = -logp_a, -logp_b, np.exp(logp_b) - np.exp(logp_a)
        self.delta_p.add(dp)
        self.sums.add(item, a=a, b=b, aa=a * a, bb=b * b, ab=a * b, dp=dp, dp2=dp * dp)


@dataclass
class Divergences:
    """One pass over all scored positions."""

    sums: ItemSums = field(default_factory=ItemSums)
    sources: ItemSums = field(default_factory=ItemSums)
    kl: Distribution = field(default_factory=Distribution)
    given: Reference = field(default_factory=Reference)  # texts and completions that the user brought
    own: Reference = field(default_factory=Reference)  # TUNED's responses
    undefined: int = 0
    worst: Floats = field(default_factory=lambda: np.zeros((0, 2)))  # [items, (largest KL, its pos)]

    @property
    def reference(self) -> Reference:
        return self.given if self.given.delta_p.n else self.own


def gather(comparison: Records) -> Divergences:
    """Sums per item and bounded sketches, streaming; positions with an infinite KL or log-probability are counted."""
    found = Divergences()
    for frame in comparison.batches("tokens", columns=COLUMNS):
        values = frame.drop(columns="source").to_numpy(np.float64)
        fine = np.isfinite(values).all(1)
        found.undefined += int((~fine).sum())
        source = frame["source"].astype(str).to_numpy()[fine]
        item, pos, la, lb, kl, rev, js, tv, best_a, best_b = values[fine].T
        item = item.astype(np.int64)
        if not len(item):
            continue
        agree = best_a == best_b
        found.kl.add(kl)
        found.sums.add(item, kl=kl, rev=rev, js=js, tv=tv, agree=agree)
        for name in np.unique(source):
            rows = source == name
            found.sources.add(
                item[rows], **{f"{name} n": rows[rows], f"{name} kl": kl[rows], f"{name} agree": agree[rows]}
            )
            kind = found.own if name == "response" else found.given
            kind.add(item[rows], la[rows], lb[rows])
        size = max(len(found.worst), int(item.max()) + 1)
        best = np.full((size, 2), -np.inf)
        best[: len(found.worst)] = found.worst
        order = np.argsort(kl, kind="stable")
        order = order[kl[order] > best[item[order], 0]]
        best[item[order]] = np.stack([kl, pos], 1)[order]  # the last assignment per item is its largest
        found.worst = best
    return found


def quantile_interval(comparison: Records, kl: Distribution, seed: int) -> dict[str, Estimate]:
    r"""Intervals of KL quantiles by Woodruff's method (1952), in a second pass with one count per item and quantile.

    .. math:: F(x_q) \in [q - \delta_l, q + \delta_h] \Rightarrow x \in [F^{-1}(q - \delta_l), F^{-1}(q + \delta_h)]
    """
    wanted = {name: (q, kl.quantile(q)) for name, _, q in QUANTILES if name in BOUNDED}
    sums = ItemSums()
    for frame in comparison.batches("tokens", columns=["item", "kl_ab", "kl_ba", "js", "logp_a", "logp_b"]):
        fine = frame[np.isfinite(frame.to_numpy(np.float64)).all(1)]
        x = fine["kl_ab"].to_numpy(np.float64)
        sums.add(fine["item"], **{name: x <= cut for name, (_, cut) in wanted.items()})
    found = {}
    for name, (q, cut) in wanted.items():
        e = sums.mean(name, proportion=True, seed=seed)
        low, high = None, None
        if e.low is not None and e.high is not None and e.value is not None:
            low, high = kl.quantile(max(0.0, q - (e.value - e.low))), kl.quantile(min(1.0, q + (e.high - e.value)))
        method = f"Woodruff over {e.method}"
        found[name] = Estimate(cut, low, high, e.level, method, e.n_items, e.n_clusters, e.warnings)
    return found


def perplexity_rows(reference: Reference, kind: str, seed: int) -> tuple[Finding, ...]:
    """llama.cpp's perplexity block: Q is TUNED, base is BASE."""
    sums, n = reference.sums.of("n", "a", "b", "aa", "bb", "ab"), reference.delta_p.n

    def correlation(s: Floats) -> Floats:
        m = s[..., 1:] / s[..., :1]
        spread = np.sqrt((m[..., 2] - m[..., 0] ** 2) * (m[..., 3] - m[..., 1] ** 2))
        return np.divide(
            m[..., 4] - m[..., 0] * m[..., 1], spread, out=np.full_like(spread, np.nan), where=spread > 1e-12
        )

    told = (
        ("ppl_tuned", "Mean PPL(Q)", lambda s: np.exp(s[..., 2] / s[..., 0]), "perplexity", -1),
        ("ppl_base", "Mean PPL(base)", lambda s: np.exp(s[..., 1] / s[..., 0]), "perplexity", 0),
        ("ln_ppl_correlation", "Cor(ln(PPL(Q)), ln(PPL(base)))", correlation, "correlation", 0),
        ("ln_ppl_ratio", "Mean ln(PPL(Q)/PPL(base))", lambda s: (s[..., 2] - s[..., 1]) / s[..., 0], "nats", -1),
        ("ppl_ratio", "Mean PPL(Q)/PPL(base)", lambda s: np.exp((s[..., 2] - s[..., 1]) / s[..., 0]), "ratio", -1),
        ("ppl_difference", "Mean PPL(Q)-PPL(base)",
         lambda s: np.exp(s[..., 2] / s[..., 0]) - np.exp(s[..., 1] / s[..., 0]), "perplexity", -1),
    )  # fmt: skip
    rows = []
    for name, title, statistic, unit, direction in told:
        e = cluster_bootstrap(sums, statistic, n_items=n, seed=seed)
        shown = "undefined" if e.value is None else f"{e.value:.4g}"
        sentence = f"{title} is {shown} on {kind} (Q = TUNED)."
        rows.append(Finding.of(name, e, title=title, sentence=sentence, unit=unit, direction=direction))
    return tuple(rows)


def extreme_rows(distribution: Distribution, what: str, symbol: str, rows: Any, unit: str) -> list[Finding]:
    """Maximum, quantiles, minimum of one distribution, in llama.cpp's order and words."""
    pairs = [("max", "Maximum", 1.0), *rows, ("min", "Minimum", 0.0)]
    found = []
    for short, words, q in pairs:
        value = distribution.quantile(q)
        title, name = f"{words:<7} {symbol}", f"{what}_{short}"
        if value is None:
            found.append(undefined(name, "no scored positions", title=title))
            continue
        few = q not in (0.0, 1.0) and distribution.n * min(q, 1 - q) < 1
        note = ("too few positions to tell this quantile from the extreme",) if few else ()
        sentence = f"{words.strip()} {symbol}: {value:.4g} {unit} over {distribution.n:,} positions."
        found.append(
            Finding(name=name, title=title, value=value, unit=unit, sentence=sentence, n_items=distribution.n,
                    warnings=("no interval: read off the distribution", *note))
        )  # fmt: skip
    return found


def worst_prompts(comparison: Records, found: Divergences, top: int = 20) -> list[dict[str, Any]]:
    """The prompts with the largest single KL and those with the largest mean KL, with texts."""
    items, sums = found.sums.items, found.sums.of("kl", "n", "agree")
    mean, peak = sums[:, 0] / sums[:, 1], found.worst[items, 0]
    by_peak, by_mean = (np.argsort(-x, kind="stable")[:top] for x in (peak, mean))
    chosen = list(dict.fromkeys([*by_peak.tolist(), *by_mean.tolist()]))
    numbers = [int(items[i]) for i in chosen]
    told, texts = items_of(comparison), outputs_of(comparison, numbers)
    at = rows_of(comparison, "tokens", numbers, ["item", "pos", "token_id", "kl_ab"])
    rows = []
    for i, item in zip(chosen, numbers, strict=True):
        own = at[at["item"] == item].reset_index(drop=True)
        where = int(np.where(np.isfinite(own["kl_ab"]), own["kl_ab"], -np.inf).argmax())
        known = told.loc[item] if item in told.index else {"id": str(item), "prompt": "", "tags": ()}
        rows.append({
            "id": str(known["id"]), "prompt": clip(known["prompt"]), "tags": ", ".join(known["tags"]),
            "max_kl": float(peak[i]), "mean_kl": float(mean[i]), "positions": int(sums[i, 1]),
            "same_top": float(sums[i, 2] / sums[i, 1]), "at": context(comparison, own["token_id"].tolist(), where),
            "base_output": clip(texts.get((item, "a"))), "tuned_output": clip(texts.get((item, "b"))),
        })  # fmt: skip
    return rows


def mean_rows(comparison: Records, found: Divergences, seed: int) -> tuple[Finding, ...]:
    """Means beside the headline; the agreement carries the table by tag and by kind of text."""
    told = (("kl_reverse_mean", "Mean KL(TUNED||BASE)", "rev", "nats"), ("js_mean", "Mean JS", "js", "nats"),
            ("tv_mean", "Mean total variation", "tv", "probability"))  # fmt: skip
    rows: list[Finding] = []
    for name, title, column, unit in told:
        e = found.sums.mean(column, seed=seed)
        rows.append(
            Finding.of(name, e, title=title, unit=unit, direction=-1, sentence=f"{title} is {e.value:.4g} {unit}.")
        )
    e = found.sums.mean("agree", proportion=True, seed=seed)
    sentence = f"Both models have the same first choice at {share(e.value)} of positions."
    groups = {f"tag {t}": (m, "", found.sums) for t, m in tags_of(items_of(comparison)).items()}
    groups |= {f"source {s}": (None, f"{s} ", found.sources) for s in ("response", "completion", "text")}
    table = []
    for group, (members, prefix, sums) in groups.items():
        s = sums.of(f"{prefix}kl", f"{prefix}agree", f"{prefix}n")
        s = s[np.isin(sums.items, members)] if members is not None else s
        s = s[s[:, 2] > 0]
        if len(s):
            kl = cluster_bootstrap(s[:, [0, 2]], seed=seed)
            row = {"group": group, "prompts": len(s), "positions": int(s[:, 2].sum()), "mean_kl": kl.value}
            table.append({**row, "low": kl.low, "high": kl.high, "same_top": s[:, 1].sum() / s[:, 2].sum()})
    more: dict[str, Any] = {"title": "Same top p", "unit": "share of positions", "direction": 1, "table": tuple(table)}
    return (*rows, Finding.of("top1_agreement", e, sentence=sentence, **more))
