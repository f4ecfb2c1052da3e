"""Resampling: the closed form against enumeration, the last worthwhile attempt, and the measured form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.decode.search import resampling_curve
from plumbline.decode.search.resampling import false_positive_trend, last_worth, permuted, synthetic_models
from plumbline.kernels.seeds import rng

TYPES = {"correct": [0.87, 0.13], "soundness": 0.75, "weights": [0.58, 0.42]}


def enumerated(r, s, c, budget):
    """(correct, wrong, attempts) of one problem, over every sequence of right/wrong and pass/reject."""
    chance = {(1, 1): r * c, (1, 0): r * (1 - c), (0, 1): (1 - r) * (1 - s), (0, 0): (1 - r) * s}
    out = np.zeros(3)
    for path in itertools.product(chance, repeat=budget):
        p = math.prod(chance[step] for step in path)
        first = next((i for i, (_, passed) in enumerate(path) if passed), None)
        out[2] += p * (budget if first is None else first + 1)
        if first is not None:
            out[1 - path[first][0]] += p
    return out


def test_closed_form_is_the_enumerated():
    r, s, c, w = np.array([0.7, 0.2]), np.array([0.6, 0.9]), np.array([0.8, 1.0]), np.array([0.25, 0.75])
    found = resampling_curve(r, None, s, c, w, budget=4, kappa=0.3, cost=0.01)
    for k in range(1, 5):
        correct, wrong, attempts = sum(wi * enumerated(*each, k) for wi, *each in zip(w, r, s, c, strict=True))
        at = k - 1
        assert (found.correct[at], found.wrong[at], found.attempts[at]) == pytest.approx((correct, wrong, attempts))
        assert found.utility[at] == pytest.approx(correct - 0.3 * wrong - 0.01 * attempts)
    assert np.allclose(found.correct + found.wrong + found.abstain, 1)
    assert found.rows()[2]["budgets"] == 3


def test_a_perfect_verifier_gives_pass_at_k_and_everything_in_the_end():
    found = resampling_curve([0.3, 0.01], None, 1.0, budget=10**4)
    assert np.allclose(found.correct, 1 - (0.7**found.budgets + 0.99**found.budgets) / 2)
    assert found.ceiling == 1 and found.best == math.inf and found.wrong.max() == 0


def test_the_ceiling_is_the_limit():
    found = resampling_curve(**TYPES, budget=3000)
    assert found.correct[-1] == pytest.approx(found.ceiling) and (np.diff(found.correct) >= 0).all()
    never = resampling_curve([0.0, 0.5], None, 1.0, budget=5)  # the first type never passes
    assert never.ceiling == 0.5 and never.abstain[-1] == pytest.approx(0.5 + 0.5**6) and never.attempts[-1] > 2.5


@pytest.mark.parametrize(("kappa", "best"), [(0.7, 3), (1.0, 2), (2.0, 1), (0.0, math.inf), (50.0, 0)])
def test_the_last_worthwhile_attempt(kappa, best):
    found = resampling_curve(**TYPES, kappa=kappa)
    assert found.best == best
    if 0 < best < math.inf:
        assert found.utility.argmax() + 1 == best
        assert np.diff(found.utility)[int(best) - 2 if best > 1 else 0] * (1 if best > 1 else -1) > 0


@pytest.mark.parametrize("cost", [0.1, 0.2, 0.5])
def test_the_cost_of_a_sample_counts_in_the_last_attempt(cost):
    found = resampling_curve(**TYPES, kappa=0.2, cost=cost)
    assert found.best == found.utility.argmax() + 1 < resampling_curve(**TYPES, kappa=0.2).best


def test_identical_problems_never_give_a_finite_best():
    for r, kappa in itertools.product((0.1, 0.5, 0.9), (0.1, 1.0, 10.0)):
        assert resampling_curve([r, r], None, 0.6, kappa=kappa).best in (0.0, math.inf)


def test_last_worth_far_out_and_at_the_edges():
    v, b = np.array([1.0, -1e-4]), np.array([0.99, 0.999])
    k = np.arange(1, 5000)
    slow = k[(v * b ** (k[:, None] - 1)).sum(1) >= 0].max()
    assert last_worth(v, b) == slow > 900
    assert last_worth(np.array([1.0, -1e-300]), np.array([0.5, 0.9])) == pytest.approx(
        1 + 300 * math.log(10) / math.log(1.8), abs=1
    )
    assert last_worth(np.zeros(2), b) == math.inf
    assert last_worth(np.array([-1.0]), np.zeros(1)) == 0 and last_worth(np.array([1.0]), np.zeros(1)) == math.inf


def judged(problems=30, n=12):
    random = rng(0, "judged")
    right = random.random((problems, n)) < random.random((problems, 1))
    return right, right | (random.random((problems, n)) < 0.2)


def test_measured_is_the_mean_over_all_orders():
    right, passed = judged(3, 4)
    passed[2] = False
    found = resampling_curve(right, passed, budget=4, kappa=2.0, cost=0.1)
    for k in range(1, 5):
        out = np.zeros(3)
        orders = list(itertools.permutations(range(4)))
        for order, i in itertools.product(orders, range(3)):
            first = next((at for at in range(k) if passed[i, order[at]]), None)
            out[2] += k if first is None else first + 1
            if first is not None:
                out[0 if right[i, order[first]] else 1] += 1
        out /= len(orders) * 3
        assert (found.correct[k - 1], found.wrong[k - 1], found.attempts[k - 1]) == pytest.approx(tuple(out))
        assert found.utility[k - 1] == pytest.approx(out[0] - 2 * out[1] - 0.1 * out[2])


def test_permutations_agree_with_the_exact_curve():
    right, passed = judged()
    found = resampling_curve(right, passed, budget=5)
    drawn = permuted(right, passed, budget=5, permutations=1000)
    error = drawn.std(0, ddof=1) / math.sqrt(1000)
    assert (np.abs(drawn.mean(0) - [found.correct[4], found.wrong[4]]) < 3 * error + 1e-12).all()


def test_measured_best_is_the_last_gain_before_a_loss():
    right = np.array([[True] + [False] * 9, [False] * 10])
    passed = np.array([[True] * 1 + [False] * 9, [False] * 9 + [True]])
    assert resampling_curve(right, passed, budget=10, kappa=0.5).best == math.inf
    assert resampling_curve(right, passed, budget=10, kappa=2.0).best == 0


def test_trend_over_synthetic_models():
    made = synthetic_models()
    share = [((1 - r) * (1 - s)).sum() / (r + (1 - r) * (1 - s)).sum() for r, s in made.values()]
    trend = false_positive_trend([r.mean() for r, _ in made.values()], share)
    assert trend["slope"] < -0.1 and trend["r"] < -0.9  # weaker models are fooled into more false passes
    with pytest.raises(InputError, match="two or more models"):
        false_positive_trend([0.5], [0.1])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"correct": [0.5, 1.5], "soundness": 0.5}, "correct must be probabilities"),
        ({"correct": [0.5], "soundness": [0.5, 0.5]}, "soundness must be probabilities"),
        ({"correct": [0.5]}, "correct must be rates"),
        ({"correct": [0.5], "soundness": 0.5, "weights": [-1.0]}, "weights must be"),
        ({"correct": np.ones((2, 3), bool), "passes": np.ones((2, 4), bool)}, "bool"),
        ({"correct": np.ones((2, 3), bool), "passes": np.ones((2, 3), bool)}, "budget must be at most 3"),
        ({"correct": np.ones((2, 3), bool), "passes": np.ones((2, 3), bool), "soundness": 0.5}, "given alone"),
        ({"correct": [0.5], "soundness": 0.5, "kappa": -1.0}, "kappa must be"),
    ],
)
def test_refuses(given, says):
    with pytest.raises(InputError, match=says):
        resampling_curve(**given)
