"""Teacher-forced and free-running negative log-likelihoods, summed per item and bucket of position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from plumbline.kernels.records import Records
from plumbline.kernels.stats import Estimate
from plumbline.measure import figures
from plumbline.measure.shift.positions import BUCKETS, bucket
from plumbline.measure.totals import ItemSums

SOURCES = ("completion", "text")


def _split(at: Any, nll: dict[str, Any]) -> dict[str, Any]:
    where, found = bucket(at), dict(nll)
    for b in np.unique(where).tolist():
        found |= {f"{arm}_{b}": np.where(where == b, x, 0.0) for arm, x in nll.items()}
        found[f"n_{b}"] = where == b
    return found


def teacher_sums(comparison: Records, limit: int) -> ItemSums:
    sums = ItemSums()
    for frame in comparison.batches("tokens", columns=["item", "source", "pos_in_response", "logp_a", "logp_b"]):
        rows = frame[
            frame["source"].astype(str).isin(SOURCES).to_numpy() & (frame["pos_in_response"] < limit).to_numpy()
        ]
        rows = rows[np.isfinite(rows[["logp_a", "logp_b"]]).all(axis=1)]
        nll = {arm: -rows[f"logp_{arm}"].to_numpy(np.float64) for arm in "ab"}
        sums.add(rows["item"], **_split(rows["pos_in_response"], nll))
    return sums


def free_sums(comparison: Records, limit: int) -> dict[str, ItemSums]:
    sums = {"a": ItemSums(), "b": ItemSums()}
    for frame in comparison.batches("samples", columns=["item", "arm", "logp"], rows=2048):
        for arm, found in sums.items():
            rows = frame[(frame["arm"].astype(str) == arm).to_numpy()]
            logps = [np.asarray(p, np.float64)[:limit] for p in rows["logp"]]
            if sum(map(len, logps)):
                at = np.concatenate([np.arange(len(p)) for p in logps])
                found.add(
                    np.repeat(rows["item"], [len(p) for p in logps]), **_split(at, {"nll": -np.concatenate(logps)})
                )
    return sums


def difference(a: Estimate, b: Estimate) -> Estimate:
    r"""a - b of two independent estimates, by the square-and-add interval (Newcombe, 1998).

    .. math:: [d - \sqrt{(a - l_a)^2 + (u_b - b)^2},\; d + \sqrt{(u_a - a)^2 + (b - l_b)^2}]
    """
    ends = (a.value, a.low, a.high, b.value, b.low, b.high)
    value = None if a.value is None or b.value is None else a.value - b.value
    low = high = None
    if None not in ends:
        av, al, ah, bv, bl, bh = (float(x) for x in ends)  # type: ignore[arg-type]
        low, high = av - bv - np.hypot(av - al, bh - bv), av - bv + np.hypot(ah - av, bv - bl)
    n, g = a.n_items + b.n_items, min(a.n_clusters, b.n_clusters)
    method = f"square and add over {a.method}"
    return replace(a, value=value, low=low, high=high, method=method, n_items=n, n_clusters=g,
                   warnings=tuple(dict.fromkeys((*a.warnings, *b.warnings))))  # fmt: skip


def curve(teacher: ItemSums, free: dict[str, ItemSums], seed: int) -> dict[str, Any]:
    """Four lines by position: both models, reading and writing."""
    series: dict[str, dict[str, Any]] = {}
    told = (
        ("TUNED, reference text", teacher, "b", figures.TUNED),
        ("TUNED, own samples", free["b"], "nll", figures.OTHER),
        ("BASE, reference text", teacher, "a", figures.BASE),
        ("BASE, own samples", free["a"], "nll", figures.GOOD),
    )
    for name, sums, column, color in told:
        line: dict[str, list[Any]] = {"x": [], "y": [], "low": [], "high": []}
        for b, label in enumerate(BUCKETS):
            if sums.total(f"n_{b}"):
                e = sums.mean(f"{column}_{b}", f"n_{b}", seed=seed)
                for key, value in zip(line, (label, e.value, e.low, e.high), strict=True):
                    line[key].append(value)
        if None in line["low"]:
            line = {"x": line["x"], "y": line["y"]}
        series[name] = {**line, "color": color}
    return figures.lines(series, "position", "nats per token", xaxis={"type": "category"})
