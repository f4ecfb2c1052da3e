from __future__ import annotations

import pytest
import torch
from tests.objectives.rl.faulty import likeness, unbounded
from tests.objectives.rl.trl_correction import rollouts, trl_weights

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import token_mask


def test_by_hand():
    old, engine = Scored(torch.tensor([[0.5, 0.25, 0.8]]).log()), Scored(torch.tensor([[0.4, 0.5, 0.1]]).log())
    assert token_mask(old, engine).tolist() == [[pytest.approx(1.25), pytest.approx(0.5), 0]]
    assert token_mask(old, engine, lower=0.8).tolist() == [[pytest.approx(1.25), 0, 0]]
    # dropped tokens count in the mean, so that normalised weights add up to the tokens there are
    assert token_mask(old, engine, normalised=True).sum().item() == pytest.approx(3)


def test_the_ends_of_the_band_are_inside():
    old, engine = Scored(torch.zeros(1, 1)), Scored(torch.zeros(1, 1))
    assert token_mask(old, engine, upper=1.0, lower=0.5).item() == 1


@pytest.mark.parametrize(("low", "high"), [(None, 2.0), (0.5, 3.0), (0.8, None)])
def test_as_trl(low, high):
    old, sampler, mask = rollouts()
    found = token_mask(Scored(old, mask), Scored(sampler, mask), upper=high, lower=low)
    assert torch.allclose(found[mask], trl_weights("token_mask", old, sampler, mask, low, high)[mask], atol=1e-5)


def test_a_bound_of_zero_is_refused():
    x = Scored(torch.zeros(1, 1))
    with pytest.raises(InputError, match="token_mask: upper must be a number > 0 or None, got 0"):
        token_mask(x, x, upper=0)


def test_a_short_training_goes_where_it_would_with_an_engine_that_is_right():
    assert likeness(token_mask) > likeness(unbounded) + 0.1
