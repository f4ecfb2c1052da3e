"""The judge's model: matrices, limits, known values, simulation, and the orderings of its defaults."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.decode.search import judge_scaling
from plumbline.decode.search.judge import Moments, coefficient, error, moments, resolvent, simulate
from plumbline.kernels.seeds import rng

DEFAULTS = {"alpha": 1.5, "s0": 0.7, "g": 1.0, "tau2": 1.0, "c": 0.0, "v": 0.0, "predictive_noise": True}


@pytest.mark.parametrize(("alpha", "lam"), [(1.5, 0.49), (0.5, 0.1), (1.0, 0.1), (4.0, 2.0)])
def test_resolvent_is_that_of_a_large_matrix(alpha, lam):
    x = rng(0, "resolvent").standard_normal((round(400 * alpha), 400)) / 20
    eigenvalues = np.linalg.eigvalsh(x.T @ x) + lam
    assert resolvent(alpha, lam) == pytest.approx(((1 / eigenvalues).mean(), (1 / eigenvalues**2).mean()), rel=0.02)


def sampled(k, temperature, at, n=200_000):
    """The chosen prediction's squared error by drawing everything, and its standard error."""
    random = rng(0, "sampled", k)
    d, r = random.multivariate_normal([0, 0], [[at.delta2, at.cov], [at.cov, at.v]], n, method="eigh").T
    y = d[:, None] + math.sqrt(at.variance) * random.standard_normal((n, k))
    score = -((y - r[:, None]) ** 2) / max(temperature, 1e-12)
    p = np.exp(score - score.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    values = (p * y**2).sum(1)
    return values.mean(), values.std() / math.sqrt(n)


@pytest.mark.parametrize(
    ("k", "temperature", "cov", "v"),
    [(2, 0.0, 0.0, 0.6), (8, 0.0, 0.1, 0.4), (8, 0.3, 0.1, 0.4), (3, 5.0, -0.1, 0.2), (20, 0.02, 0.0, 0.0)],
)
def test_integral_is_the_sampled_mean(k, temperature, cov, v):
    at = Moments(0.3, cov, v, 0.8)
    mean, deviation = sampled(k, temperature, at)
    assert abs(error(k, temperature, at) - mean) < 3.5 * deviation + 2e-4 * mean


def test_limits():
    at = Moments(0.3, 0.05, 0.4, 0.8)
    assert error(1, 0.5, at) == pytest.approx(1.1)
    assert error(1.0001, 0.5, at) == pytest.approx(1.1, rel=1e-3)  # the integral itself joins on
    assert error(math.inf, 0.0, at) == 0.4 and error(math.inf, 1e12, at) == pytest.approx(1.1)
    assert error(1e5, 0.5, at) == pytest.approx(error(math.inf, 0.5, at), rel=1e-3)
    assert error(8, 1e-5, at) == pytest.approx(error(8, 0.0, at), rel=1e-3)
    assert error(8, 1e5, at) == pytest.approx(1.1, rel=1e-3)


@pytest.mark.parametrize("ratio", [0.1, 0.3])
def test_best_of_many_falls_as_one_over_k_squared(ratio):
    at = Moments(ratio, 0.0, 0.0, 1.0)
    assert error(200, 0.0, at) * 200**2 == pytest.approx(coefficient(at), rel=0.05)
    assert error(5000, 0.0, at) * 5000**2 == pytest.approx(coefficient(at), rel=0.001)
    assert coefficient(Moments(0.5, 0.0, 0.0, 1.0)) == math.inf


def test_finite_dimensions_agree():
    for k, temperature, c, v in ((1, 0.0, 0.0, 0.0), (8, 0.5, 0.2, 0.3)):
        mean, deviation = simulate(k, temperature, c=c, v=v, dims=150, sets=25)
        predicted = judge_scaling([k], [temperature], c=c, v=v).error[0, 0]
        assert abs(mean - predicted) < 3 * deviation + 0.01 * predicted


def test_orderings_of_the_defaults():
    teacher = judge_scaling([1, 2, 4, 8, 16])
    assert teacher.error[:, 0] == pytest.approx([1.215, 0.477, 0.172, 0.057, 0.0173], rel=0.01)
    assert teacher.best_k.tolist() == [16] and teacher.coefficient == pytest.approx(coefficient(teacher.moments))
    wrong = judge_scaling([2, 4, 8, 16, 64], v=0.6)
    assert wrong.error[:, 0] == pytest.approx([0.66, 0.49, 0.476, 0.50, 0.56], abs=0.006)
    assert wrong.best_k.tolist() == [8] and wrong.coefficient is None
    assert judge_scaling([1, 2, 4, 8, 16], v=1.0).best_k.tolist() == [4]
    warm = judge_scaling([64], [0.0, 0.1, 1.0], v=0.6)
    assert warm.best_temperature.tolist() == [0.1] and warm.error[0, 0] < warm.error[0, 2]


def test_an_overshooting_judge_beats_the_teacher():
    plain, over = (judge_scaling([8, math.inf], [1.0], c=e, v=e * e).error[:, 0] for e in (0.0, 0.2))
    assert plain[0] == pytest.approx(0.400, abs=0.002) and over[0] == pytest.approx(0.383, abs=0.002)
    # the limit's slope at e = 0 is -2 a (1 - a) lam M tau2
    step = 1e-6
    slope = (judge_scaling([math.inf], [1.0], c=step, v=step**2).error[0, 0] - plain[1]) / step
    at = moments(**DEFAULTS)
    a = 1 / (1 + 2 * at.variance)
    assert slope == pytest.approx(-2 * a * (1 - a) * 0.49 * resolvent(1.5, 0.49)[0], rel=1e-4)


def test_without_predictive_noise_predictions_scatter_less():
    less, more = (moments(**(DEFAULTS | {"predictive_noise": on})) for on in (False, True))
    assert more.variance - less.variance == pytest.approx(0.49) and more.delta2 == less.delta2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"c": 0.5, "v": 0.2}, "c must be at most"), ({"k": [0]}, "k must be numbers >= 1"),
        ({"temperature": [-1.0]}, "temperature must be numbers >= 0"), ({"k": [math.nan]}, "k must be"),
        ({"s0": 0.0}, "s0 must be a number > 0"),
    ],
)  # fmt: skip
def test_refuses(given, says):
    with pytest.raises(InputError, match=says):
        judge_scaling(**given)
