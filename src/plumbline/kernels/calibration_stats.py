"""Scores of confidences: calibration error, Brier, AUROC, risk-coverage. Re-exported by ``kernels.stats``.

Throughout: conf c [n] in [0, 1], correct y [n] in {0, 1}, weights w [n] >= 0 (default 1) that act as repeated rows.
Bins are index rows [n] from :func:`equal_mass_bins` or :func:`equal_width_bins`; None means 15 bins of equal mass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from plumbline.core.errors import refuse
from plumbline.kernels.seeds import rng
from plumbline.kernels.significance import Floats, wilson

Index = NDArray[np.int64]


def _checked(
    where: str, conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    c, y = np.asarray(conf, np.float64), np.asarray(correct, np.float64)
    w = np.ones_like(c) if weights is None else np.asarray(weights, np.float64)
    if c.ndim != 1 or c.shape != y.shape or c.shape != w.shape:
        raise refuse(where, "conf, correct, weights", "rows of one length", (c.shape, y.shape, w.shape), "align them")
    if not np.all((c >= 0) & (c <= 1)):
        raise refuse(where, "conf", "in [0, 1]", f"values in [{c.min()}, {c.max()}]", "pass probabilities, not logits")
    if not np.all((y == 0) | (y == 1)) or not np.all(w >= 0):
        raise refuse(
            where, "correct, weights", "0 or 1, and >= 0", "other values", "drop items without a verdict first"
        )
    return c, y, w


def equal_width_bins(conf: ArrayLike, bins: int = 15) -> Index:
    """Bin of each confidence: floor(bins * c), with c = 1 in the last bin. [n] -> [n]."""
    return np.minimum((np.asarray(conf, np.float64) * bins).astype(np.int64), bins - 1)


def equal_mass_bins(conf: ArrayLike, bins: int = 15, weights: ArrayLike | None = None) -> Index:
    """Bin of each confidence, about equally heavy: a block of equal values goes whole to the bin of its middle.

    Ties make the bins uneven and may leave fewer than ``bins``; they are then numbered without gaps. [n] -> [n].
    """
    c = np.asarray(conf, np.float64)
    w = np.ones_like(c) if weights is None else np.asarray(weights, np.float64)
    if not w.sum():
        return np.zeros(len(c), np.int64)
    values, block = np.unique(c, return_inverse=True)
    mass = np.bincount(block, weights=w, minlength=len(values))
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    index = np.minimum((middle * bins).astype(np.int64), bins - 1)
    return np.unique(index, return_inverse=True)[1].astype(np.int64)[block]


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram; every field has one entry per non-empty bin [k]."""

    mass: Floats  # share of the weight
    conf: Floats  # mean confidence
    accuracy: Floats
    n: Floats  # weight in the bin
    low: Floats  # Wilson interval of the accuracy
    high: Floats


def reliability(
    conf: ArrayLike,
    correct: ArrayLike,
    weights: ArrayLike | None = None,
    bins: Index | None = None,
    *,
    level: float = 0.95,
) -> Reliability:
    """Per-bin mean confidence C_b, accuracy A_b, mass m_b, count n_b and the Wilson interval of A_b."""
    c, y, w = _checked("reliability", conf, correct, weights)
    index = equal_mass_bins(c, weights=w) if bins is None else np.asarray(bins)
    n: Floats = np.bincount(index, weights=w).astype(np.float64)
    full = n > 0
    hits, sums = np.bincount(index, weights=w * y)[full], np.bincount(index, weights=w * c)[full]
    n = n[full]
    low, high = wilson(np.minimum(hits, n), n, level)
    return Reliability(n / max(n.sum(), 1e-300), sums / n, hits / n, n, np.atleast_1d(low), np.atleast_1d(high))


def ece(conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None, bins: Index | None = None) -> float:
    r"""Expected calibration error :math:`ECE_1 = \sum_b m_b |C_b - A_b|`. Biased up by noise: see :func:`ece_null`."""
    r = reliability(conf, correct, weights, bins)
    return float((r.mass * np.abs(r.conf - r.accuracy)).sum())


def ece_squared(
    conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None, bins: Index | None = None
) -> float:
    r""":math:`ECE_2^2 = \sum_b m_b (C_b - A_b)^2`."""
    r = reliability(conf, correct, weights, bins)
    return float((r.mass * (r.conf - r.accuracy) ** 2).sum())


def ece_debiased(
    conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None, bins: Index | None = None
) -> float:
    r"""Debiased :math:`ECE_2^2` (Kumar et al., 2019); may be negative.

    .. math:: \sum_{b: n_b \ge 2} m_b\Bigl[(C_b - A_b)^2 - \frac{A_b(1 - A_b)}{n_b - 1}\Bigr]
    """
    r = reliability(conf, correct, weights, bins)
    many = r.n >= 2
    noise = r.accuracy * (1 - r.accuracy) / np.where(many, r.n - 1, 1)
    return float((r.mass * ((r.conf - r.accuracy) ** 2 - noise))[many].sum())


def max_gap(
    conf: ArrayLike,
    correct: ArrayLike,
    weights: ArrayLike | None = None,
    bins: Index | None = None,
    *,
    min_count: int = 10,
) -> float | None:
    r"""Maximum calibration error :math:`\max_b |C_b - A_b|` over bins with n_b >= min_count; None without one."""
    r = reliability(conf, correct, weights, bins)
    gaps = np.abs(r.conf - r.accuracy)[r.n >= min_count]
    return float(gaps.max()) if len(gaps) else None


def signed_gap(conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None) -> float:
    r""":math:`\sum_b m_b (C_b - A_b)` = mean confidence minus accuracy (any bins); positive = overconfident."""
    c, y, w = _checked("signed_gap", conf, correct, weights)
    return float((w * (c - y)).sum() / w.sum())


def ks_calibration_error(conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None) -> float:
    r"""Bin-free error (Gupta et al., 2021): :math:`\max_c |\sum_{c_i \le c} w_i (c_i - y_i)| / \sum_i w_i`."""
    c, y, w = _checked("ks_calibration_error", conf, correct, weights)
    block = np.unique(c, return_inverse=True)[1]
    return float(np.abs(np.cumsum(np.bincount(block, weights=w * (c - y)))).max() / w.sum())


def ece_null(
    conf: ArrayLike, weights: ArrayLike | None = None, bins: Index | None = None, *, resamples: int = 200, seed: int = 0
) -> tuple[float, float]:
    r"""ECE_1 that perfect calibration would show by noise alone: y' ~ Bernoulli(c), recomputed.

    Returns:
        (mean, 95% quantile) over the simulations. Excess = ece - mean is what there is to explain.
    """
    c, _, w = _checked("ece_null", conf, np.zeros(len(np.asarray(conf))), weights)
    index = equal_mass_bins(c, weights=w) if bins is None else np.asarray(bins)
    stream, k = rng(seed, "ece_null"), int(index.max()) + 1
    confidence, found = np.bincount(index, weights=w * c, minlength=k), np.empty(resamples)
    for i in range(resamples):
        hits = np.bincount(index, weights=w * (stream.random(len(c)) < c), minlength=k)
        found[i] = np.abs(confidence - hits).sum() / w.sum()
    return float(found.mean()), float(np.quantile(found, 0.95))


def brier(conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None) -> float:
    r"""Brier score (1950): mean of :math:`(c - y)^2`."""
    c, y, w = _checked("brier", conf, correct, weights)
    return float((w * (c - y) ** 2).sum() / w.sum())


def binary_nll(conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Negative log-likelihood of the verdicts in nats, probabilities clipped at 1e-12."""
    c, y, w = _checked("binary_nll", conf, correct, weights)
    return float(-(w * np.log(np.maximum(np.where(y == 1, c, 1 - c), 1e-12))).sum() / w.sum())


def murphy(
    conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None, bins: Index | None = None
) -> dict[str, float]:
    r"""Murphy's split (1973): Brier = reliability - resolution + uncertainty + within.

    .. math:: REL = \sum m_b (C_b - A_b)^2,\; RES = \sum m_b (A_b - \bar y)^2,\; UNC = \bar y(1 - \bar y)

    ``within`` is what confidences that vary inside a bin add; it is 0 when c is constant in every bin.
    """
    c, y, w = _checked("murphy", conf, correct, weights)
    r = reliability(c, y, w, bins)
    mean = float((w * y).sum() / w.sum())
    rel, res = float((r.mass * (r.conf - r.accuracy) ** 2).sum()), float((r.mass * (r.accuracy - mean) ** 2).sum())
    unc = mean * (1 - mean)
    return {"reliability": rel, "resolution": res, "uncertainty": unc, "within": brier(c, y, w) - (rel - res + unc)}


def auroc(conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    r"""Probability that a correct item has the higher confidence, ties 1/2. Any scores, not only probabilities.

    .. math:: \frac{\sum_{i: y=1} \sum_{j: y=0} w_i w_j (\mathbb 1[c_i > c_j] + \tfrac12 \mathbb 1[c_i = c_j])}{W_1 W_0}

    None when all items are correct or all wrong.
    """
    c, y = np.asarray(conf), np.asarray(correct, np.float64)
    w = np.ones_like(y) if weights is None else np.asarray(weights, np.float64)
    block = np.unique(c, return_inverse=True)[1]
    hit, miss = np.bincount(block, weights=w * y), np.bincount(block, weights=w * (1 - y))
    if not hit.sum() or not miss.sum():
        return None
    return float((hit * (np.cumsum(miss) - miss / 2)).sum() / (hit.sum() * miss.sum()))


def average_precision(conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Area under precision-recall as average precision (scikit-learn's); None without a correct item."""
    from sklearn.metrics import average_precision_score

    y = np.asarray(correct)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    return float(average_precision_score(y, conf, sample_weight=w)) if (w * y).sum() > 0 else None


@dataclass(frozen=True)
class RiskCoverage:
    """Error among the most confident answers, as more are answered. Points [k] lie where a threshold can be put."""

    coverage: Floats
    risk: Floats
    aurc: float
    excess_aurc: float

    def risk_at(self, coverage: float) -> float:
        """Error rate when at least this share is answered (at the next possible threshold)."""
        at = min(int(np.searchsorted(self.coverage, coverage - 1e-12)), len(self.coverage) - 1)
        return float(self.risk[at])

    def coverage_at(self, risk: float) -> float:
        """Largest share that can be answered with an error rate of at most ``risk``; 0 when none."""
        fine = self.coverage[self.risk <= risk + 1e-12]
        return float(fine.max()) if len(fine) else 0.0


def _aurc(errors: Floats, n: Floats) -> float:
    # Within a tied block of m items and e errors after K items and E errors, the expected risk at K + j is
    # (E + j e/m) / (K + j); its sum over j = 1..m is (E - K e/m)(H_{K+m} - H_K) + e.
    before, wrong = np.cumsum(n) - n, np.cumsum(errors) - errors
    harmonic = special.digamma(before + n + 1) - special.digamma(before + 1)
    return float(((wrong - before * errors / n) * harmonic + errors).sum() / n.sum())


def risk_coverage(conf: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None) -> RiskCoverage:
    r"""Risk-coverage curve (Geifman and El-Yaniv, 2017), most confident first; ties by their expected order.

    .. math:: AURC = \tfrac1n \sum_k \frac{\text{errors in the top } k}{k}

    ``excess_aurc`` subtracts the AURC of the best order with the same number of errors.
    """
    c, y, w = _checked("risk_coverage", conf, correct, weights)
    c, y, w = c[w > 0], y[w > 0], w[w > 0]
    if not len(c):
        raise refuse("risk_coverage", "conf", "at least one item", "none", "skip the measure without items")
    block = np.unique(-c, return_inverse=True)[1]
    n = np.bincount(block, weights=w).astype(np.float64)
    errors = np.bincount(block, weights=w * (1 - y)).astype(np.float64)
    oracle = np.array([n.sum() - errors.sum(), errors.sum()])
    best = _aurc(np.array([0.0, errors.sum()])[oracle > 0], oracle[oracle > 0])
    aurc = _aurc(errors, n)
    return RiskCoverage(np.cumsum(n) / n.sum(), np.cumsum(errors) / np.cumsum(n), aurc, aurc - best)
