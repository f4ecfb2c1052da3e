from __future__ import annotations

import warnings

import pytest
import torch
from tests.objectives.rl.faulty import likeness, unbounded_answers
from tests.objectives.rl.trl_correction import rollouts, trl_weights

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import sequence_truncate


def test_by_hand():
    mask = torch.tensor([[True, True, True], [True, True, False], [False, False, False]])
    old = Scored(torch.tensor([[0.5, 0.25, 0.8], [0.4, 0.5, 1.0], [1.0, 1.0, 1.0]]).log(), mask)
    engine = Scored(torch.tensor([[0.25, 0.5, 0.1], [0.2, 0.5, 0.1], [0.1, 0.1, 0.1]]).log(), mask)
    assert sequence_truncate(old, engine).tolist() == [[3.0], [pytest.approx(2.0)], [0.0]]  # products 8 and 2
    assert sequence_truncate(old, engine, upper=None, lower=2.5).tolist() == [[pytest.approx(8)], [2.5], [0]]
    normalised = sequence_truncate(old, engine, normalised=True)
    assert normalised[:2].tolist() == [[pytest.approx(1.2)], [pytest.approx(0.8)]]


@pytest.mark.parametrize(("low", "high"), [(None, 3.0), (0.5, 2.0), (0.8, None)])
def test_as_trl(low, high):
    old, sampler, mask = rollouts()
    found = sequence_truncate(Scored(old, mask), Scored(sampler, mask), upper=high, lower=low)
    theirs = trl_weights("sequence_truncate", old, sampler, mask, low, high)
    assert found.shape == theirs.shape == (40, 1) and torch.allclose(found, theirs, atol=1e-5)


def lengths_against(rows_changed: torch.Tensor, length: torch.Tensor):
    mask = torch.arange(64) < length[:, None]
    gap = torch.where(rows_changed[:, None], 5.0 / length[:, None], 0.0) * mask
    return Scored(gap - 1.0, mask), Scored(torch.full_like(gap, -1.0), mask)


def test_it_warns_where_long_answers_are_the_ones_it_bounds():
    length = torch.arange(1, 41)
    with pytest.warns(UserWarning, match=r"the long answers are the ones it changes \(Spearman 0.8"), noted() as heard:
        sequence_truncate(*lengths_against(length > 20, length))
    assert heard["mismatch_length_correlation"][0] > 0.8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sequence_truncate(*lengths_against(length % 2 == 0, length))
        sequence_truncate(*lengths_against(length[:20] > 10, length[:20]))  # too few rows to say


def test_a_band_in_the_wrong_order_is_refused():
    x = Scored(torch.zeros(1, 1))
    with pytest.raises(InputError, match="sequence_truncate: lower, upper must be a band"):
        sequence_truncate(x, x, lower=3.0)


def test_a_short_training_goes_where_it_would_with_an_engine_that_is_right():
    assert likeness(sequence_truncate) > likeness(unbounded_answers) + 0.1
