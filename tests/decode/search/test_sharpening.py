"""Sharpening: best-of-n against enumeration, the tilted optimum, coverage, training pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.decode.samples import Samples
from plumbline.decode.search import sharpening
from plumbline.decode.search.sharpen import (
    best_of_n_distribution,
    coverage,
    samples_needed,
    sft_pairs,
    sharpened,
    tilted,
)
from plumbline.kernels.seeds import rng
from plumbline.lab.tables import TableLM


def answers(seed=0):
    """Probabilities of the 8 answers of 3 tokens from a table of 2."""
    table = np.exp(TableLM.random(2, seed=seed).logps)
    return np.array([table[0, a] * table[a, b] * table[b, c] for a, b, c in itertools.product((0, 1), repeat=3)])


def enumerated(pi, reward, n):
    """Best-of-n by listing all draws; equal rewards share their chance in proportion to pi."""
    out, reward = np.zeros(len(pi)), np.round(reward, 12)  # two answers have the same probability, up to rounding
    for draws in itertools.product(range(len(pi)), repeat=n):
        top = max(reward[d] for d in draws)
        tied = np.array([pi[y] if reward[y] == top else 0.0 for y in range(len(pi))])
        out += np.prod(pi[list(draws)]) * tied / tied.sum()
    return out


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_is_the_enumerated(n):
    pi = answers()
    assert np.allclose(best_of_n_distribution(pi, n), enumerated(pi, pi, n), atol=1e-12)
    tied = np.array([1, 2, 2, 0, 0, 1, 2, 0.0])
    assert np.allclose(best_of_n_distribution(pi, n, tied), enumerated(pi, tied, n), atol=1e-12)
    both = best_of_n_distribution(np.stack([pi, answers(1)]), n)
    assert np.allclose(both[1], best_of_n_distribution(answers(1), n)) and np.allclose(both.sum(-1), 1)


def test_mode_mass_is_exact_for_tiny_modes_and_huge_n():
    pi = np.append(1e-9 * 1.01, np.full(10**6, (1 - 1.01e-9) / 10**6))
    found = best_of_n_distribution(pi, 10**8, np.append(1.0, np.zeros(10**6)))
    assert found[0] == pytest.approx(-math.expm1(1e8 * math.log1p(-1.01e-9)), rel=1e-9)
    zero = best_of_n_distribution([0.0, 0.4, 0.6], 5)
    assert zero[0] == 0 and zero[2] == pytest.approx(1 - 0.4**5)


@pytest.mark.parametrize("beta", [0.1, 1.0, 7.0])
def test_tilted_beats_a_thousand_perturbations(beta):
    pi, random = answers(), rng(0, "tilt")

    def objective(q):
        return (q * (np.log(pi) - beta * np.log(q / pi))).sum(-1)

    best = tilted(pi, beta)
    others = best * np.exp(0.1 * random.standard_normal((1000, 8)))
    assert (objective(others / others.sum(-1, keepdims=True)) <= objective(best)).all()
    assert np.allclose(tilted(pi, 1e9), pi) and tilted(pi, 1e-6).argmax() == pi.argmax()
    assert tilted(np.append(pi, 0.0), beta)[-1] == 0


def test_coverage_and_samples_needed_by_hand():
    pi = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.5, 0.5, 0.0]])
    assert coverage(pi) == pytest.approx((2 + 1.25 + 1) / 3)  # tied modes are covered together
    assert coverage(pi, [1, 1, 0]) == pytest.approx((2 + 1.25) / 2)
    assert samples_needed(pi, 0.05).tolist() == [5, 2, 1]
    assert (samples_needed(pi, 0.05) <= np.ceil(np.array([2, 1.25, 1]) * math.log(20))).all()


def test_sharpened_counts_prompts():
    pi = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    new = np.array([[0.96, 0.04, 0.0], [0.05, 0.9, 0.05]])
    assert sharpened(new, pi, eps=0.5, delta=0.05) and not sharpened(new, pi, eps=0.4, delta=0.05)
    assert sharpened(new, pi, eps=0.0, delta=0.1)
    with pytest.raises(InputError, match="new must be of pi's shape"):
        sharpened(new[:1], pi, eps=0.0, delta=0.1)


def test_function_gathers_all():
    found = sharpening([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], n=5, beta=0.5)
    assert found.mode_mass["best_of_n"].tolist() == pytest.approx([1 - 0.5**5, 1 - 0.2**5])
    assert found.mode_mass["tilted"][0] == pytest.approx(0.125 / (0.125 + 0.027 + 0.008))
    assert found.sharpened == {"pi": False, "best_of_n": True, "tilted": False}
    assert np.allclose(sharpening([0.5, 0.3, 0.2], [0, 0, 1.0], n=2).best_of_n[0], [0.4, 0.24, 0.36])


def test_training_on_pairs_converges_to_the_best_of_n_distribution():
    pi, n = answers(), 3
    draws = rng(0, "pairs").choice(8, (20000, n), p=pi)
    # 20,000 prompts in one array; 400 of them through Samples
    best = np.array([d[np.argmax(pi[d])] for d in draws])
    some = [
        Samples(tuple(map(str, d)), (), tuple(d.tolist()), np.log(pi[d]), rewards=-pi[d], prompt="?")
        for d in draws[:400]
    ]
    assert sft_pairs(some) == [{"prompt": "?", "completion": str(b)} for b in best[:400]]
    fitted = np.bincount(best, minlength=8) / 20000  # the maximum-likelihood table
    assert np.abs(fitted - best_of_n_distribution(pi, n)).sum() / 2 < 0.02
    shortest = sft_pairs(some, reward=lambda prompt, texts: [-float(t) for t in texts])
    assert [int(row["completion"]) for row in shortest] == draws[:400].min(1).tolist()


@pytest.mark.parametrize("bad", [[0.5, 0.6], [-0.1, 1.1], [math.nan, 1.0]])
def test_refuses_what_is_no_distribution(bad):
    with pytest.raises(InputError, match="sharpening: pi must be"):
        sharpening(bad)
