"""Borda voting: votes by hand, and its two limits."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.decode.samples import Samples
from plumbline.decode.search import borda, self_consistency
from plumbline.kernels.seeds import rng


def random_samples(seed, n=15):
    random = rng(seed, "borda test")
    answers = [None if a == 3 else a for a in random.integers(0, 4, n).tolist()]
    return Samples(tuple(map(str, range(n))), (), tuple(answers), self_certainty=random.standard_normal(n))


def test_votes_by_hand():
    # sure: b (rank 1), none (2), a (3), a (4): votes 4, -, 2, 1
    samples = Samples(("1", "2", "3", "4"), (), ("a", None, "b", "a"), self_certainty=[0.3, 0.8, 0.9, 0.1])
    for p in (1.0, 0.5):
        a, b = 2**p + 1**p, 4**p
        found = borda(samples, p=p)
        assert found.confidence == pytest.approx({"a": a / (a + b), "b": b / (a + b)})
        assert (found.answer, found.index) == (("b", 2) if b > a else ("a", 0))


@pytest.mark.parametrize("seed", range(8))
def test_limits(seed):
    samples = random_samples(seed)
    plain, flat = self_consistency(samples), borda(samples, p=0)
    assert flat.answer == plain.answer and flat.confidence == pytest.approx(plain.confidence)
    answered = [i for i, a in enumerate(samples.answers) if a is not None]
    surest = max(answered, key=lambda i: samples.self_certainty[i])
    assert borda(samples, p=50).index == borda(samples, p=800).index == surest


def test_equal_certainties_share_their_votes():
    samples = Samples(("1", "2", "3"), (), ("a", "b", "c"), self_certainty=[1.0, 1.0, 0.0])
    assert np.allclose(list(borda(samples, p=1).confidence.values()), [2.5 / 6, 2.5 / 6, 1 / 6])


def test_refuses():
    with pytest.raises(InputError, match="borda: samples.self_certainty must be known"):
        borda(Samples(("1",), (), ("a",)))
    with pytest.raises(InputError, match="borda: p must be a number >= 0"):
        borda(random_samples(0), p=-1)
