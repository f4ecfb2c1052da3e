"""Which of a set of path probabilities are implausibly small: a mixture of two Weibull distributions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, gammaln

from plumbline.decode.samples import Floats

START = (0.5, 1.0, 1.0, 1.5, 2.0)  # weight, then shape and scale of either component
BOUNDS = ((0.2, 0.8), (0.01, None), (0.01, None), (0.01, None), (0.01, None))
FEWEST = 8  # five parameters cannot be fitted to fewer paths


class Pruning(NamedTuple):
    """``kept`` [n] bool; ``fitted``: whether a mixture was found (otherwise all are kept)."""

    kept: NDArray[np.bool_]
    fitted: bool


def weibull_logpdf(x: Floats, shape: float, scale: float) -> Floats:
    r""":math:`\log\bigl[\frac{k}{l}(x/l)^{k-1} e^{-(x/l)^k}\bigr]` for x [n] > 0."""
    ratio = np.log(x) - np.log(scale)
    with np.errstate(over="ignore"):
        return np.log(shape) - np.log(scale) + (shape - 1) * ratio - np.exp(shape * ratio)


def _component_logs(parameters: ArrayLike, x: Floats) -> tuple[Floats, Floats]:
    w, k1, l1, k2, l2 = np.asarray(parameters, np.float64)
    return np.log(w) + weibull_logpdf(x, k1, l1), np.log1p(-w) + weibull_logpdf(x, k2, l2)


def fit(x: Floats) -> Floats | None:
    """(w, k1, l1, k2, l2) of the likeliest mixture for x [n] > 0, component 1 of the larger mean; None if not found."""

    def loss(parameters: Floats) -> tuple[float, Floats]:
        upper, lower = _component_logs(parameters, x)
        total = float(np.logaddexp(upper, lower).sum())
        own = expit(upper - lower)
        w, *shapes = parameters
        slope = [(own / w - (1 - own) / (1 - w)).sum()]
        for share, k, scale in zip((own, 1 - own), shapes[::2], shapes[1::2], strict=True):
            ratio = np.log(x) - np.log(scale)
            power = np.exp(k * ratio)
            slope += [(share * (1 / k + ratio - power * ratio)).sum(), (share * (power - 1)).sum() * k / scale]
        gradient = -np.array(slope)
        return (-total, gradient) if np.isfinite(total) and np.isfinite(gradient).all() else (1e300, np.zeros(5))

    with np.errstate(all="ignore"):
        found = minimize(loss, START, jac=True, bounds=BOUNDS, method="L-BFGS-B")
        w, k1, l1, k2, l2 = found.x
        if not (np.isfinite(found.fun) and found.fun < 1e300 and np.isfinite(found.x).all()):
            return None
        means = [np.log(scale) + gammaln(1 + 1 / shape) for shape, scale in ((k1, l1), (k2, l2))]
    return found.x if means[0] >= means[1] else np.array([1 - w, k2, l2, k1, l1])


def prune(p: ArrayLike) -> Pruning:
    r"""Drop the paths that belong to the lower component and lie below the mean.

    .. math:: i \text{ goes} \iff P(1 \mid p_i) < \tfrac12 \;\text{ and }\; p_i < \tfrac1n \sum_j p_j

    Component 1 is that of the larger mean :math:`l\,\Gamma(1 + 1/k)`. The largest p is never dropped.

    Args:
        p: [n] probabilities > 0. Fewer than 8, or all equal, are not fitted.
    """
    x = np.asarray(p, np.float64)
    everything = np.ones(len(x), bool)
    if len(x) < FEWEST or np.ptp(x) < 1e-12:
        return Pruning(everything, False)
    parameters = fit(np.sort(x))  # sums in one order, whatever the samples'
    if parameters is None:
        return Pruning(everything, False)
    with np.errstate(all="ignore"):
        upper, lower = _component_logs(parameters, x)
        share = np.nan_to_num(expit(upper - lower), nan=1.0)
    return Pruning((share >= 0.5) | (x >= x.mean()), True)
