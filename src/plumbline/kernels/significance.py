"""Tests of significance and the Wilson interval. Everything here is re-exported by ``kernels.stats``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from plumbline.core.errors import refuse
from plumbline.kernels.seeds import rng

Floats = NDArray[np.float64]


class Significance(NamedTuple):
    """A statistic, its two-sided p-value and the name of the test."""

    statistic: float
    p: float
    method: str


def z_value(level: float) -> float:
    """Two-sided normal quantile of a confidence level: 1.96 for 0.95."""
    return float(special.ndtri(0.5 + level / 2))


def t_value(level: float, df: float) -> float:
    """Two-sided Student quantile of a confidence level with ``df`` degrees of freedom."""
    return float(special.stdtrit(df, 0.5 + level / 2))


def wilson(k: Any, n: Any, level: float = 0.95) -> tuple[Any, Any]:
    r"""Wilson score interval of a proportion (Wilson, 1927).

    .. math:: \frac{p + z^2/2n}{1 + z^2/n} \pm \frac{z\sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n},\quad p = k/n

    Args:
        k: successes, a number or an array; need not be whole (a clustered proportion uses p * n_clusters).
        n: trials, same shape. n = 0 gives (0, 1).
        level: confidence level.

    Returns:
        (low, high), floats or arrays like ``k``, within [0, 1].
    """
    k_, n_ = np.asarray(k, np.float64), np.asarray(n, np.float64)
    if np.any(k_ < 0) or np.any(k_ > n_):
        raise refuse("wilson", "k", "between 0 and n", f"k={k}, n={n}", "pass successes and trials in that order")
    z2 = z_value(level) ** 2
    safe = np.where(n_ > 0, n_, 1.0)
    p = k_ / safe
    centre = (p + z2 / (2 * safe)) / (1 + z2 / safe)
    half = np.sqrt(z2) * np.sqrt(p * (1 - p) / safe + z2 / (4 * safe**2)) / (1 + z2 / safe)
    low = np.where(n_ > 0, np.where(k_ == 0, 0.0, np.clip(centre - half, 0, 1)), 0.0)
    high = np.where(n_ > 0, np.where(k_ == n_, 1.0, np.clip(centre + half, 0, 1)), 1.0)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def mcnemar(b: int, c: int) -> Significance:
    r"""McNemar's test of a paired 2x2 table (McNemar, 1947).

    .. math:: \chi^2 = (b - c)^2 / (b + c)

    with one degree of freedom; the exact two-sided Binomial(b+c, 1/2) test when b+c < 25; p = 1 when b+c = 0.

    Args:
        b: items right in the first arm and wrong in the second.
        c: items wrong in the first arm and right in the second.
    """
    if b < 0 or c < 0:
        raise refuse("mcnemar", "b, c", "counts >= 0", (b, c), "pass the two discordant counts")
    n = b + c
    chi2 = (b - c) ** 2 / n if n else 0.0
    if n < 25:
        p = 1.0 if n == 0 else min(1.0, 2 * float(special.bdtr(min(b, c), n, 0.5)))
        return Significance(chi2, p, "exact McNemar")
    return Significance(chi2, float(special.chdtrc(1, chi2)), "McNemar")


def two_proportion_z(k_a: float, n_a: float, k_b: float, n_b: float) -> Significance:
    r"""Two-proportion z test with pooled p, for independent (unpaired) samples.

    .. math:: z = (p_b - p_a) / \sqrt{p(1-p)(1/n_a + 1/n_b)},\quad p = (k_a + k_b)/(n_a + n_b)
    """
    if min(n_a, n_b) <= 0 or not (0 <= k_a <= n_a and 0 <= k_b <= n_b):
        raise refuse("two_proportion_z", "k, n", "0 <= k <= n and n > 0", (k_a, n_a, k_b, n_b), "pass counts")
    pooled = (k_a + k_b) / (n_a + n_b)
    se = np.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    z = 0.0 if se == 0 else float((k_b / n_b - k_a / n_a) / se)
    return Significance(z, float(2 * special.ndtr(-abs(z))), "two-proportion z")


def _p_values(where: str, p: ArrayLike) -> Floats:
    values = np.asarray(p, np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise refuse(where, "p", "one row of p-values in [0, 1]", values, "drop undefined tests first")
    return values


def holm(p: ArrayLike) -> Floats:
    r"""Holm's step-down adjusted p-values [m] (Holm, 1979): :math:`\max_{j \le i} \min(1, (m-j+1) p_{(j)})`."""
    values = _p_values("holm", p)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    out = np.empty_like(values)
    out[order] = np.minimum(1, np.maximum.accumulate(factors * values[order])) if len(values) else values
    return out


def benjamini_hochberg(p: ArrayLike) -> Floats:
    r"""Benjamini-Hochberg adjusted p-values [m] (1995): :math:`\min_{j \ge i} \min(1, m\,p_{(j)}/j)`."""
    values = _p_values("benjamini_hochberg", p)
    order = np.argsort(values, kind="stable")[::-1]
    ranks = np.arange(len(values), 0, -1)
    out = np.empty_like(values)
    out[order] = np.minimum(1, np.minimum.accumulate(values[order] * len(values) / np.maximum(ranks, 1)))
    return out


def kendall_tau_b(x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    r"""Kendall's tau-b with ties: :math:`(C - D) / \sqrt{(n_0 - t_x)(n_0 - t_y)}`.

    ``weights`` are whole multiplicities (a bootstrap's). None when either side is constant.
    """
    from scipy.stats import kendalltau  # slow to import

    x_, y_ = np.asarray(x), np.asarray(y)
    if weights is not None:
        times = np.asarray(weights).astype(np.int64)
        x_, y_ = np.repeat(x_, times), np.repeat(y_, times)
    if len(x_) < 2:
        return None
    tau = float(kendalltau(x_, y_).statistic)
    return None if np.isnan(tau) else tau


def _mean_difference(a: Floats, b: Floats) -> Floats:
    return np.asarray(b.mean(-1) - a.mean(-1))


def permutation_test(
    a: ArrayLike,
    b: ArrayLike,
    *,
    statistic: Callable[[Floats, Floats], Floats] = _mean_difference,
    resamples: int = 9999,
    seed: int = 0,
) -> Significance:
    r"""Two-sample permutation test: are ``a`` [n] and ``b`` [m] exchangeable?

    .. math:: p = (1 + \#\{|t^*_r| \ge |t|\}) / (1 + R)

    Args:
        a: one value per independent unit (one per prompt, not per token).
        b: likewise for the other arm.
        statistic: called as ``statistic(a [..., n], b [..., m]) -> [...]``; default: mean of b minus mean of a.
        resamples: R.
        seed: stream of the shuffles.
    """
    a_, b_ = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a_.ndim != 1 or b_.ndim != 1 or not len(a_) or not len(b_):
        raise refuse("permutation_test", "a, b", "two non-empty rows", (a_.shape, b_.shape), "pass one value per unit")
    pool, stream = np.concatenate([a_, b_]), rng(seed, "permutation_test")
    observed = float(statistic(a_, b_))
    threshold = abs(observed) * (1 - 1e-12)  # rounding must not make an equal statistic look smaller
    beyond, block = 0, max(1, 2**22 // len(pool))
    for start in range(0, resamples, block):
        rows = np.tile(pool, (min(block, resamples - start), 1))
        stream.permuted(rows, axis=1, out=rows)
        beyond += int((np.abs(statistic(rows[:, : len(a_)], rows[:, len(a_) :])) >= threshold).sum())
    return Significance(observed, (1 + beyond) / (1 + resamples), "permutation")


def sign_flip_test(
    differences: ArrayLike, clusters: ArrayLike | None = None, *, resamples: int = 9999, seed: int = 0
) -> Significance:
    r"""Paired permutation test: the signs of the differences [n] are flipped, one flip per cluster.

    .. math:: t = \tfrac1n \sum_g s_g \sum_{i \in g} d_i,\quad s_g \in \{-1, 1\}

    Exact (all 2^G flips) when that is no more than ``resamples``; otherwise p = (1 + #beyond) / (1 + R).
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or not len(d):
        raise refuse("sign_flip_test", "differences", "a non-empty row", d.shape, "pass one difference per item")
    if clusters is None:
        sums = d
    else:
        index = np.unique(np.asarray(clusters), return_inverse=True)[1]
        sums = np.bincount(index, weights=d).astype(np.float64)
    g, observed = len(sums), float(d.sum() / len(d))
    signs: NDArray[Any]
    threshold = abs(sums.sum()) * (1 - 1e-12)
    if g < 31 and 2**g <= resamples:
        signs = 1 - 2.0 * ((np.arange(2**g)[:, None] >> np.arange(g)) & 1)
        return Significance(observed, float((np.abs(signs @ sums) >= threshold).mean()), "exact sign flip")
    stream, beyond, block = rng(seed, "sign_flip_test"), 0, max(1, 2**22 // g)
    for start in range(0, resamples, block):
        signs = 1 - 2.0 * stream.integers(0, 2, size=(min(block, resamples - start), g))
        beyond += int((np.abs(signs @ sums) >= threshold).sum())
    return Significance(observed, (1 + beyond) / (1 + resamples), "sign flip")
