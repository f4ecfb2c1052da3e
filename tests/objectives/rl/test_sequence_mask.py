from __future__ import annotations

import pytest
import torch
from tests.objectives.rl.faulty import likeness, unbounded_answers
from tests.objectives.rl.trl_correction import rollouts, trl_weights

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import sequence_mask


def test_by_hand():
    old = Scored(torch.tensor([[0.5, 0.25, 0.8], [0.4, 0.5, 0.1]]).log())
    engine = Scored(torch.tensor([[0.25, 0.5, 0.1], [0.2, 0.5, 0.1]]).log())  # products 8 and 2
    assert sequence_mask(old, engine).tolist() == [[0], [pytest.approx(2)]]
    assert not sequence_mask(old, engine, lower=2.5).any()
    assert sequence_mask(old, engine, normalised=True).tolist() == [[0], [pytest.approx(2)]]
    assert not sequence_mask(old, engine, upper=9.0, veto=0.6)[0].any()  # its second token's ratio is 1/2


@pytest.mark.parametrize(("low", "high"), [(None, 3.0), (0.5, 2.0), (0.8, None)])
def test_as_trl(low, high):
    old, sampler, mask = rollouts()
    found = sequence_mask(Scored(old, mask), Scored(sampler, mask), upper=high, lower=low)
    assert torch.allclose(found, trl_weights("sequence_mask", old, sampler, mask, low, high), atol=1e-5)
    assert 0 < (found == 0).sum() < 40


def test_a_negative_veto_is_refused():
    x = Scored(torch.zeros(1, 1))
    with pytest.raises(InputError, match="sequence_mask: veto must be a number > 0 or None, got -1"):
        sequence_mask(x, x, veto=-1)


def test_a_short_training_goes_where_it_would_with_an_engine_that_is_right():
    assert likeness(sequence_mask) > likeness(unbounded_answers) + 0.05
