"""Per-prompt sums of sampled generations: entropies, log-probabilities and lengths, step by step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.kernels.records import Records
from plumbline.kernels.stats import Estimate, cluster_mean
from plumbline.measure.totals import Floats

FLOOR = float(np.log(1e-12))  # what the official code takes for a log-probability of -inf
LIVE = 4  # a step counts while more than 3 samples of the prompt are alive
PROMPTS = 10  # a window of the curve needs this many prompts


@dataclass(frozen=True)
class Generations:
    """One arm's samples, padded: rows are samples, columns are steps."""

    item: NDArray[np.int64]  # [R]
    entropy: Floats  # [R, T], 0 beyond the end
    logp: Floats  # [R, T]
    length: NDArray[np.int64]  # [R]
    floored: int


def generations(comparison: Records, arm: str) -> Generations:
    """The samples of one arm. Only a bounded number of prompts is sampled, so this is small whatever the input."""
    items, entropies, logps = [], [], []
    for frame in comparison.batches("samples", columns=["item", "arm", "ent", "logp"], rows=4096):
        rows = frame[frame["arm"].astype(str) == arm]
        items += rows["item"].tolist()
        entropies += [np.asarray(e, np.float64) for e in rows["ent"]]
        logps += [np.asarray(p, np.float64) for p in rows["logp"]]
    length = np.array([len(p) for p in logps], np.int64)
    inside = np.arange(int(length.max(initial=0)))[None, :] < length[:, None]
    entropy, logp = np.zeros(inside.shape), np.zeros(inside.shape)
    if inside.any():
        entropy[inside], logp[inside] = np.concatenate(entropies), np.concatenate(logps)
    return Generations(np.asarray(items, np.int64), entropy, np.maximum(logp, FLOOR), length, int((logp < FLOOR).sum()))


@dataclass(frozen=True)
class BranchingArm:
    """Branching of one arm, per prompt [P]."""

    items: NDArray[np.int64]
    log_bf: Floats  # by entropy up to the asymptotic length, by likelihood beyond
    log_entropy: Floats
    log_nll: Floats
    length: Floats  # mean sample length
    curve: Floats  # [P, windows], NaN where no sample lives
    live: Floats  # [windows], share of samples alive
    floored: int


def branching(g: Generations, *, window: int, asymptotic: int) -> BranchingArm:
    """Every prompt's branching factor by both routes, and its curve; prompts with fewer than 4 samples are left out."""
    rows: dict[str, list[Any]] = {k: [] for k in ("items", "log_bf", "log_entropy", "log_nll", "length", "curve")}
    steps = g.logp.shape[1]
    n_windows = -(-steps // window)
    starts = np.arange(0, steps, window)
    alive = np.arange(steps)[None, :] < g.length[:, None]
    for item in np.unique(g.item):
        own = (g.item == item) & (g.length > 0)
        if own.sum() < LIVE:
            continue
        length, entropy, logp = g.length[own], g.entropy[own], g.logp[own]
        here = alive[own]
        counts = here.sum(0)
        n = min(int(np.ceil(np.quantile(length, 0.95))), int((counts >= LIVE).sum()))
        by_entropy = float((entropy.sum(0)[:n] / counts[:n]).mean())
        # a sample that ended before n has emitted all it will: its own length divides its likelihood
        by_nll = float(-(np.where(here, logp, 0)[:, :n].sum(1) / np.minimum(length, n)).mean())
        sums, live = np.add.reduceat(entropy, starts, axis=1), np.add.reduceat(here.astype(float), starts, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            each = np.exp(sums / live)
        some = ~np.isnan(each)
        curve = np.where(some.any(0), np.nansum(each, 0) / np.maximum(some.sum(0), 1), np.nan)
        values = (int(item), by_entropy if n <= asymptotic else by_nll, by_entropy, by_nll, float(length.mean()), curve)
        for key, value in zip(rows, values, strict=True):
            rows[key].append(value)
    live_share = alive[:, ::window].mean(0) if len(alive) else np.zeros(n_windows)
    arrays = {k: np.asarray(v, np.int64 if k == "items" else np.float64) for k, v in rows.items()}
    arrays["curve"] = arrays["curve"].reshape(len(rows["items"]), n_windows)
    return BranchingArm(**arrays, live=live_share, floored=g.floored)


def window_rows(arm: BranchingArm, *, window: int, seed: int) -> list[dict[str, Any]]:
    """The curve: mean branching per window over prompts, while at least 10 prompts are alive."""
    rows = []
    for w in range(arm.curve.shape[1]):
        known = ~np.isnan(arm.curve[:, w])
        if known.sum() >= PROMPTS:
            e = cluster_mean(arm.curve[known, w], arm.items[known], seed=seed)
            row = {"from_token": w * window, "prompts": int(known.sum()), "live": float(arm.live[w])}
            rows.append({**row, "branching": e.value, "low": e.low, "high": e.high})
    return rows


def exponential(e: Estimate) -> Estimate:
    """An estimate of a log as one of the number itself."""
    value, low, high = (None if x is None else float(np.exp(x)) for x in (e.value, e.low, e.high))
    return replace(e, value=value, low=low, high=high)
