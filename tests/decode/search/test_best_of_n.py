"""Best-of-n: the reward it is given, the samples' own, or the log-probability; answers before none."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.core.errors import InputError
from plumbline.decode.samples import Samples, Selection
from plumbline.decode.search import best_of_n
from plumbline.kernels.seeds import rng


def given(**more):
    return Samples(("aa", "b", "ccc"), (), ("x", "y", "y"), [-3.0, -1.0, -2.0], [2, 1, 3], prompt="why", **more)


def test_which_reward_decides():
    shares = {"x": 1 / 3, "y": 2 / 3}
    assert best_of_n(given()) == Selection(1, "y", shares)
    assert best_of_n(given(rewards=[5.0, 1.0, 2.0])) == Selection(0, "x", shares)
    asked = []

    def longest(prompt, texts):
        asked.append(prompt)
        return [len(t) for t in texts]

    assert best_of_n(given(rewards=[5.0, 1.0, 2.0]), reward=longest) == Selection(2, "y", shares)
    assert asked == ["why"]


def test_samples_without_an_answer():
    texts = ("a", "b")
    assert best_of_n(Samples(texts, (), (None, "b"), rewards=[2.0, 1.0])).index == 1
    assert best_of_n(Samples(texts, (), (None, None), rewards=[1.0, 2.0])) == Selection(1, None, {})


def test_picks_the_mode_as_often_as_the_closed_form_says():
    pi, n = np.array([0.5, 0.3, 0.2]), 3
    draws = rng(0, "test").choice(3, (3000, n), p=pi)
    picked = [best_of_n(Samples(tuple(map(str, d)), (), tuple(d.tolist()), np.log(pi[d]))).answer for d in draws]
    assert np.bincount(picked) / 3000 == pytest.approx([1 - 0.5**3, 0.5**3 - 0.2**3, 0.2**3], abs=0.03)


@pytest.mark.parametrize("bad", [lambda p, t: [1.0], lambda p, t: [1.0, np.nan, 2.0]])
def test_refuses_rewards(bad):
    with pytest.raises(InputError, match="best_of_n: reward must be to give 3 finite numbers|reward must"):
        best_of_n(given(), reward=bad)
    with pytest.raises(InputError, match="best_of_n: samples.logps must be known"):
        best_of_n(Samples(("a",), (), ("a",)))
