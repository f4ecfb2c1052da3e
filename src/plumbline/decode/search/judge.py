"""Drawing k answers and letting a judge pick, in Bayesian linear regression: moments, integrals and a simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, roots_hermitenorm

from plumbline.core.errors import refuse
from plumbline.decode.samples import Floats
from plumbline.kernels.seeds import rng


@dataclass(frozen=True, eq=False)
class JudgeScaling:
    """Errors over a grid of sample counts and judge temperatures.

    Attributes:
        k: [K]; inf is the limit. temperature: [T]. error: [K, T], the expected squared error against the teacher.
        best_k: [T], of the grid. best_temperature: [K], of the grid.
        moments: what the errors follow from.
        coefficient: lim k^2 error with the teacher as judge at temperature 0; inf where that limit does not exist
            (moments.delta2 >= moments.variance / 2), None with another judge.
    """

    k: Floats
    temperature: Floats
    error: Floats
    best_k: Floats
    best_temperature: Floats
    moments: Moments
    coefficient: float | None


class Moments(NamedTuple):
    """Of m - t (prediction's mean less the teacher's) and r - t (the judge's target less the teacher's)."""

    delta2: float  # E (m - t)^2
    cov: float  # E (m - t)(r - t)
    v: float  # E (r - t)^2
    variance: float  # of one sampled prediction around m


def resolvent(alpha: float, lam: float) -> tuple[float, float]:
    r"""Limits of :math:`\frac1d tr A^{-1}` and :math:`\frac1d tr A^{-2}` for :math:`A = X^\top X / d + \lambda`.

    .. math:: M = \frac{-(\lambda + \alpha - 1) + \sqrt{(\lambda + \alpha - 1)^2 + 4\lambda}}{2\lambda}, \qquad
        M_2 = \frac{M^2 + M}{2\lambda M + \lambda + \alpha - 1}
    """
    b = lam + alpha - 1
    root = math.sqrt(b * b + 4 * lam)
    m = 2 / (b + root) if b > 0 else (root - b) / (2 * lam)  # the form without cancellation
    return m, (m * m + m) / (2 * lam * m + b)


def moments(
    *, alpha: float, s0: float, g: float, tau2: float, c: float, v: float, predictive_noise: bool
) -> Moments:  # fmt: skip
    """The four numbers in the high-dimensional limit; see ``judge_scaling``."""
    lam = s0**2 / g**2
    m, m2 = resolvent(alpha, lam)
    delta2 = lam**2 * tau2 * m2 + s0**2 * (m - lam * m2)
    return Moments(delta2, -lam * m * c, v, s0**2 * (m + predictive_noise))


def error(k: float, temperature: float, at: Moments, *, nodes: int = 64) -> float:
    r"""Expected squared error of the chosen of k predictions, without sampling, to about 1e-4 of itself.

    The judge's softmax is a race: it takes the smallest :math:`e_i^2 + T \log E_i`, with :math:`e_i` the distance of
    prediction i from the judge's target and :math:`E_i` exponential. All k are independent given
    :math:`a = E[e_i] = m - r`, so that one integral over the race's winning value, one over a and one over E remain.

    Args:
        k: how many, at least 1; inf for the limit. temperature: T >= 0 of the judge. at: moments.
        nodes: of the integral over a.
    """
    spread = at.delta2 + at.v - 2 * at.cov  # variance of a
    along = (at.cov - at.v) / spread if spread > 0 else 0.0  # E[r - t | a] = along * a
    rest = max(at.v - along**2 * spread, 0.0)
    if math.isinf(k):
        keep = 1 / (1 + 2 * at.variance / temperature) if temperature > 0 else 0.0
        mean2 = keep**2 * at.delta2 + 2 * keep * (1 - keep) * at.cov + (1 - keep) ** 2 * at.v
        return mean2 + keep * at.variance
    if k == 1:
        return at.delta2 + at.variance
    x, weights = roots_hermitenorm(nodes)
    inner = (x >= 0) & (weights > 1e-30)
    x, weights = x[inner], np.where(x[inner] > 0, 2.0, 1.0) * weights[inner] / weights.sum()
    a = x * math.sqrt(spread)
    first, second = _winner(a, math.sqrt(at.variance), k, temperature)
    return float(weights @ (second + 2 * along * a * first + (along * a) ** 2)) + rest


def _winner(a: Floats, s: float, k: float, temperature: float) -> tuple[Floats, Floats]:
    """Mean and mean square of the winning distance [A], its competitors being N(a, s^2) for a [A] >= 0."""
    far = float(a.max()) + 9 * s
    if temperature > 0:
        noise = np.linspace(-24.0 - math.log(k), 4.0, 120)  # log of an exponential variable
        share = np.exp(noise - np.exp(noise))
        share /= share.sum()
    else:
        noise, share = np.zeros(1), np.ones(1)
    reach = math.sqrt(far**2 + 4 * temperature)
    above = np.unique(np.append(np.linspace(0, reach, 500), np.geomspace(1e-7 * s, reach, 400))) ** 2
    below = temperature * np.linspace(noise[0], 0, 300)[:-1]
    values = np.append(below, above) if temperature > 0 else above
    left = np.zeros((3, len(values), len(a)))  # E[1, e, e^2; value beyond] of one competitor
    for shift, p in zip(temperature * noise, share, strict=True):
        left += p * _beyond(np.sqrt(np.maximum(values - shift, 0))[:, None], a[None], s)
    alive = left[0].clip(0, 1)
    top, low = alive[:-1], alive[1:]
    gone = top - low
    with np.errstate(divide="ignore", invalid="ignore"):
        # the mean of k alive^(k-1) over a cell: exact for what is linear in alive there
        chance = np.where(gone > 1e-13, (top**k - low**k) / gone, k * top ** (k - 1))
    return tuple(((part[:-1] - part[1:]) * chance).sum(0) + part[-1] * alive[-1] ** (k - 1) for part in left[1:])  # type: ignore[return-value]


def _beyond(h: Floats, a: Floats, s: float) -> Floats:
    """E[1, e, e^2; |e| > h] for e ~ N(a, s^2), stacked [3, ...]."""
    up, down = (h - a) / s, (h + a) / s
    p = ndtr(-up) + ndtr(-down)
    at_up, at_down = (np.exp(-z * z / 2) * (s / math.sqrt(2 * math.pi)) for z in (up, down))
    return np.stack([p, a * p + at_up - at_down, (a * a + s * s) * p + (h + a) * at_up + (h - a) * at_down])


def coefficient(at: Moments) -> float:
    r""":math:`\lim_k k^2 \cdot error = \pi s^2 / \sqrt{1 - 2\Delta^2/s^2}` with the teacher as judge; inf beyond it."""
    room = 1 - 2 * at.delta2 / at.variance
    return math.pi * at.variance / math.sqrt(room) if room > 0 else math.inf


def simulate(
    k: int, temperature: float, *, dims: int = 200, alpha: float = 1.5, s0: float = 0.7, g: float = 1.0,
    tau2: float = 1.0, c: float = 0.0, v: float = 0.0, predictive_noise: bool = True, sets: int = 20,
    points: int = 500, seed: int = 0,
) -> tuple[float, float]:  # fmt: skip
    """The same experiment with finite data: mean squared error and its standard error over training sets.

    Args:
        dims: d; n = alpha d rows are drawn for each of ``sets`` training sets, with ``points`` test inputs each.
    """
    random, n, lam = rng(seed, "judge", k), round(alpha * dims), s0**2 / g**2
    means = []
    for _ in range(sets):
        teacher, other = random.standard_normal((2, dims))
        teacher *= math.sqrt(tau2 * dims) / np.linalg.norm(teacher)
        other -= teacher * (other @ teacher) / (teacher @ teacher)
        other *= math.sqrt(max(v - c * c / tau2, 0) * dims) / np.linalg.norm(other)
        judge = teacher * (1 + c / tau2) + other
        x = random.standard_normal((n, dims)) / math.sqrt(dims)
        y = x @ teacher + s0 * random.standard_normal(n)
        inverse = np.linalg.inv(x.T @ x + lam * np.eye(dims))
        z = random.standard_normal((points, dims)) / math.sqrt(dims)
        variance = s0**2 * (np.einsum("pi,ij,pj->p", z, inverse, z) + predictive_noise)
        drawn = z @ (inverse @ (x.T @ y)) + np.sqrt(variance) * random.standard_normal((k, points))
        reward = -((drawn - z @ judge) ** 2)
        race = random.exponential(size=(k, points))
        taken = (-reward + temperature * np.log(race)).argmin(0)
        means.append(float(((drawn[taken, np.arange(points)] - z @ teacher) ** 2).mean()))
    return float(np.mean(means)), float(np.std(means, ddof=1) / math.sqrt(sets))


def grid(name: str, value: Sequence[float], least: float) -> Floats:
    """``value`` as sorted numbers, each at least ``least``."""
    array = np.atleast_1d(np.asarray(value, np.float64))
    if array.ndim != 1 or not len(array) or not (array >= least).all():
        raise refuse("judge_scaling", name, f"numbers >= {least:g}", value, "pass a list of them")
    return array
