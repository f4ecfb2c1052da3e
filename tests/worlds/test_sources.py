"""Exact distributions against enumeration and against samples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.worlds import Grammar, Markov
from plumbline.worlds.sources import Rules

SMALL: Rules = {
    "S": ((0.5, ("A", "b", ".")), (0.5, ("A", "."))),
    "A": ((0.25, ("a",)), (0.75, ("c", "c"))),
}


def test_markov_is_stationary_and_its_entropy_is_that_of_long_words() -> None:
    chain = Markov(3, seed=4)
    np.testing.assert_allclose(chain.stationary @ chain.transition, chain.stationary, atol=1e-12)

    def block(n: int) -> float:
        total = 0.0
        for word in itertools.product(range(3), repeat=n):
            p = math.prod(chain.next_distribution(word[:i])[s] for i, s in enumerate(word))
            total -= p * math.log(p)
        return total

    assert block(6) - block(5) == pytest.approx(chain.entropy_rate(), abs=1e-10)


def test_markov_samples_follow_the_distribution_and_the_seed() -> None:
    chain = Markov(4, seed=1)
    sample = chain.sample(200, 200, seed=3)
    np.testing.assert_array_equal(sample, chain.sample(200, 200, seed=3))
    assert (sample != chain.sample(200, 200, seed=4)).any()
    counts = np.zeros((4, 4))
    np.add.at(counts, (sample[:, :-1].ravel(), sample[:, 1:].ravel()), 1)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), chain.transition, atol=0.02)


def test_grammar_next_word_by_hand() -> None:
    grammar = Grammar(SMALL)
    index = {word: i for i, word in enumerate(grammar.vocab)}

    def after(text: str) -> dict[str, float]:
        found = grammar.next_distribution([index[word] for word in text])
        return {word: float(found[i]) for word, i in index.items() if found[i]}

    assert after("") == pytest.approx({"a": 0.25, "c": 0.75})
    assert after("c") == pytest.approx({"c": 1.0})
    assert after("cc") == pytest.approx({"b": 0.5, ".": 0.5})
    assert after("cc.") == pytest.approx({"a": 0.25, "c": 0.75})


def test_grammar_entropy_rate_by_enumeration() -> None:
    # Four sentences: a b . / a . / c c b . / c c .
    probabilities, lengths = np.array([0.125, 0.125, 0.375, 0.375]), np.array([3, 2, 4, 3])
    expected = -(probabilities * np.log(probabilities)).sum() / (probabilities * lengths).sum()
    assert Grammar(SMALL).entropy_rate() == pytest.approx(expected)


def test_the_recursive_grammar_agrees_with_its_samples() -> None:
    grammar = Grammar()
    words = grammar.sample(60, 120, seed=2)
    np.testing.assert_array_equal(words, grammar.sample(60, 120, seed=2))
    surprise = [-math.log(grammar.next_distribution(row[:i])[row[i]]) for row in words[:20] for i in range(60)]
    assert np.mean(surprise) == pytest.approx(grammar.entropy_rate(), abs=0.1)
    assert grammar.next_distribution(words[0][:17]).sum() == pytest.approx(1.0)


def test_what_a_source_refuses() -> None:
    with pytest.raises(InputError, match="symbols must be"):
        Markov(1)
    with pytest.raises(InputError, match="add up to 1"):
        Grammar({"S": ((0.5, ("a",)),)})
    grammar = Grammar(SMALL)
    with pytest.raises(InputError, match="words that the grammar can write"):
        grammar.next_distribution([grammar.vocab.index("b")])
