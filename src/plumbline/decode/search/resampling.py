"""Sampling until an imperfect verifier passes: outcomes by budget, and the attempt from which more does harm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from plumbline.core.errors import refuse
from plumbline.decode.samples import Floats
from plumbline.kernels.seeds import rng

_FARTHEST = 1e9  # attempts that are looked at for a change of sign


@dataclass(frozen=True, eq=False)
class Curve:
    """Outcomes for budgets of 1 to K attempts.

    Attributes:
        budgets: [K]. correct, wrong, abstain: [K] shares of the problems, adding up to 1.
        utility: [K] correct - kappa wrong - cost attempts. attempts: [K] expected number of samples drawn.
        ceiling: the share that is correct with an unlimited budget (with every sample there is, when measured).
        best: the last attempt whose value is not negative: 0 where the first does harm already, inf where none does.
    """

    budgets: np.ndarray
    correct: Floats
    wrong: Floats
    abstain: Floats
    utility: Floats
    attempts: Floats
    ceiling: float
    best: float

    def rows(self) -> list[dict[str, float]]:
        """One row a budget, for tables."""
        names = ("budgets", "correct", "wrong", "abstain", "utility", "attempts")
        columns = [np.asarray(getattr(self, name)).tolist() for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def rates(name: str, value: ArrayLike, size: int) -> Floats:
    """``value`` as [size] numbers in [0, 1]."""
    array = np.asarray(value, np.float64)
    if array.shape not in ((), (size,)) or not ((array >= 0) & (array <= 1)).all():
        raise refuse("resampling_curve", name, f"probabilities, one or {size}", value, "give one for all or one each")
    return np.broadcast_to(array, (size,))


def predicted(
    r: Floats, s: Floats, c: Floats, w: Floats, *, budget: int, kappa: float, cost: float
) -> Curve:  # fmt: skip
    """The curve in closed form from rates [P] and weights [P]; see ``resampling_curve``."""
    b = (1 - c) * r + s * (1 - r)
    a = c * r + (1 - s) * (1 - r)  # 1 - b without its rounding
    passes = a > 0
    safe = np.where(passes, a, 1.0)
    precision = np.where(passes, c * r / safe, 0.0)
    k = np.arange(1, budget + 1)
    with np.errstate(divide="ignore"):
        done = -np.expm1(k[:, None] * np.log(b))  # [K, P], 1 - b^K
    attempts = np.where(passes, done / safe, k[:, None].astype(float)) @ w
    correct, wrong = done @ (w * precision), done @ (w * (1 - precision) * passes)
    value = c * r - kappa * (1 - r) * (1 - s) - cost
    return Curve(
        k, correct, wrong, 1 - correct - wrong, correct - kappa * wrong - cost * attempts, attempts,
        float(w @ precision), last_worth(w * value, b),
    )  # fmt: skip


def last_worth(v: Floats, b: Floats) -> float:
    r"""The last k with :math:`\sum_i v_i b_i^{k-1} \ge 0`, for v [P] and b [P] in [0, 1]; 0: none, inf: no last one."""
    worth = v != 0
    if not worth.any():
        return math.inf
    v, b = v[worth], b[worth]
    with np.errstate(divide="ignore"):
        decay = np.log(b) - np.log(b.max()) if b.max() > 0 else np.zeros(len(b))
    last = decay > -1e-15  # the problems that are left after many rejections
    if b.max() > 0 and v[last].sum() >= 0:
        return math.inf

    def value(k: np.ndarray) -> Floats:
        with np.errstate(invalid="ignore"):
            return np.where(k[:, None] == 1, 1.0, np.exp((k[:, None] - 1) * decay)) @ v

    grid = np.unique(np.geomspace(1, _FARTHEST, 6000).round())
    good = np.flatnonzero(value(grid) >= 0)
    if not len(good):
        return 0.0
    if b.max() == 0 or good[-1] + 1 == len(grid):
        return math.inf
    low, high = grid[good[-1]], grid[good[-1] + 1]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if value(np.array([middle]))[0] >= 0 else (low, middle)
    return float(low)


def measured(correct: np.ndarray, passes: np.ndarray, *, budget: int, kappa: float, cost: float) -> Curve:
    r"""The exact mean curve over random orders of n judged samples a problem.

    .. math:: P(\text{no pass in } K) = \binom{n - m}{K} \Big/ \binom{n}{K}

    for m passes of n; the first pass is any of them alike. Args: correct, passes [P, n] bool.
    """
    n, m = correct.shape[1], passes.sum(1)
    k = np.arange(0, budget + 1)
    none = _no_pass(n, m, k)  # [K + 1, P]
    share = np.where(m > 0, (correct & passes).sum(1) / np.maximum(m, 1), 0.0)
    done = 1 - none[1:]
    right, wrong = (done * share).mean(1), (done * (1 - share)).mean(1)
    attempts = np.cumsum(none[:-1].mean(1))
    utility = right - kappa * wrong - cost * attempts
    gains = np.diff(utility, prepend=0.0)
    best = int(np.flatnonzero(np.append(True, gains > 1e-12))[-1])  # attempts that change nothing do no harm
    return Curve(k[1:], right, wrong, 1 - right - wrong, utility, attempts, float(np.where(m > 0, share, 0).mean()),
                 float(best) if (gains[best:] < -1e-12).any() else math.inf)  # fmt: skip


def _no_pass(n: int, m: np.ndarray, k: np.ndarray) -> Floats:
    left = n - m[None] - k[:, None]
    logs = gammaln(n - m + 1)[None] - gammaln(np.maximum(left, 0) + 1) + (gammaln(n - k + 1) - gammaln(n + 1))[:, None]
    return np.where(left >= 0, np.exp(np.minimum(logs, 0)), 0.0)


def permuted(correct: np.ndarray, passes: np.ndarray, *, budget: int, permutations: int, seed: int = 0) -> Floats:
    """Shares (correct, wrong) [permutations, 2] at ``budget`` over random orders: a check of :func:`measured`."""
    random, (p, n) = rng(seed, "resampling"), correct.shape
    out = np.zeros((permutations, 2))
    for i in range(permutations):
        order = random.permuted(np.tile(np.arange(n), (p, 1)), axis=1)[:, :budget]
        seen = np.take_along_axis(passes, order, 1)
        first = np.take_along_axis(order, seen.argmax(1)[:, None], 1)
        right = np.take_along_axis(correct, first, 1)[:, 0]
        out[i] = [(seen.any(1) & right).mean(), (seen.any(1) & ~right).mean()]
    return out


def false_positive_trend(accuracy: ArrayLike, share: ArrayLike) -> dict[str, float]:
    r"""Least squares over models, :math:`\text{share} = a + b \cdot \text{accuracy}`, with the correlation.

    Args:
        accuracy: [M], of a single sample. share: [M], of the samples that pass the verifier, those that are wrong.
    """
    x, y = np.asarray(accuracy, np.float64), np.asarray(share, np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2 or np.ptp(x) == 0:
        raise refuse("false_positive_trend", "accuracy", "two or more models that differ", x.tolist(), "add models")
    slope, intercept = np.polyfit(x, y, 1)
    return {"slope": float(slope), "intercept": float(intercept), "r": float(np.corrcoef(x, y)[0, 1])}


def synthetic_models(
    strengths: Mapping[str, float] | None = None, *, problems: int = 400, seed: int = 0
) -> dict[str, tuple[Floats, Floats]]:  # fmt: skip
    """Models of different strength on the same problems: name -> (r [P], soundness [P]).

    r is Beta-distributed with mean ``strength``; the harder a problem is for a model, the likelier a wrong answer of
    its slips through the tests (soundness 0.9 at r = 1, 0.6 at r = 0).
    """
    names = strengths or {"weak": 0.25, "middle": 0.5, "strong": 0.8}
    made = {}
    for name, mean in names.items():
        r = rng(seed, "synthetic_models", name).beta(3 * mean, 3 * (1 - mean), problems)
        made[name] = (r, 0.6 + 0.3 * r)
    return made
