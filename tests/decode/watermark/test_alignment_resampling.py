from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode.watermark import alignment_resampling, diverse_gumbel_watermark, gumbel_watermark, trials
from plumbline.decode.watermark._alignment_resampling import _expected_maximum


def test_by_hand():
    drawn = [["bb", "c"], ["a", "ccc"], ["bb", "cc"]]
    found = alignment_resampling(lambda i: drawn[i], lambda answers: [len(a) for a in answers], n=3)
    assert found.best == ["bb", "ccc"] and found.index.tolist() == [0, 1]  # the first of equals
    assert found.rewards.tolist() == [[2, 1], [1, 3], [2, 2]] and found.distinct.tolist() == [2, 3]


def test_one_sample_is_the_sample():
    assert alignment_resampling(lambda i: ["x"], lambda a: [0.0], n=1).best == ["x"]


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_expected_maximum_and_the_papers_bound(n):
    exact = {2: 1 / math.sqrt(math.pi), 4: 1.0293753730, 8: 1.4236003060, 16: 1.7659913931}
    assert _expected_maximum(n) == pytest.approx(exact[n], abs=1e-8)
    assert _expected_maximum(n) >= math.sqrt(math.log(n) / (math.pi * math.log(2))) - 1e-12


def test_the_exact_watermark_leaves_nothing_to_choose():
    def kept(rule):
        return alignment_resampling(
            lambda i: trials.write(rule, rows=4, length=20, draw=i), lambda a: torch.stack(a).float().mean(-1), n=3
        )

    exact, diverse = kept(gumbel_watermark()), kept(diverse_gumbel_watermark())
    assert exact.distinct.tolist() == [1] * 4 and (exact.rewards == exact.rewards[0]).all()
    assert diverse.distinct.min() > 1 and (diverse.rewards.max(0) > diverse.rewards[0]).any()


@pytest.mark.parametrize(
    ("draw", "reward", "told"),
    [
        (lambda i: "one", lambda a: [0.0], "draw must be a function that gives a list"),
        (lambda i: ["x"] * (i + 1), lambda a: [0.0] * len(a), "each time as many"),
        (lambda i: ["x"], lambda a: [math.nan], "reward must be a function that gives 1 numbers, none nan"),
        (lambda i: ["x", "y"], lambda a: [1.0], "reward must be"),
    ],
)
def test_bad_functions_are_refused(draw, reward, told):
    with pytest.raises(InputError, match=told):
        alignment_resampling(draw, reward, n=2)


def test_n_zero_is_refused_by_name():
    with pytest.raises(InputError, match="alignment_resampling: n must be"):
        alignment_resampling(lambda i: ["x"], lambda a: [0.0], n=0)
