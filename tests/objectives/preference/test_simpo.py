from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.preference.peer import pairs, trl_simpo
from tests.objectives.preference.recipes import fine_tuned, gaps
from tests.objectives.preference.recipes import pairs as recipes
from tests.short_training import trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import simpo


def one(*probabilities: float) -> Scored:
    return Scored(torch.tensor([probabilities]).log())


def test_by_hand():
    # means: chosen log(1/2), rejected (log(1/2) + log(1/8))/2 = log(1/4): 2 log 2 - log 2 = log 2 with gamma = log 2
    pair = one(0.5), one(0.5, 0.125)
    assert simpo(*pair, beta=2.0, gamma=math.log(2)).item() == pytest.approx(math.log(1.5), abs=1e-6)
    assert simpo(*pair, beta=2.0, gamma=0.0).item() == pytest.approx(math.log(1.25), abs=1e-6)


def test_the_margin_is_in_units_of_the_reward():
    # half of the pull is left where the reward gap equals gamma, whatever beta is
    for beta in (0.5, 2.0, 10.0):
        chosen = torch.tensor([[-1.0 + 0.8 / beta]], requires_grad=True)
        loss = simpo(Scored(chosen), Scored(torch.tensor([[-1.0]])), beta=beta, gamma=0.8)
        (slope,) = torch.autograd.grad(loss.sum(), chosen)
        assert loss.item() == pytest.approx(math.log(2), abs=1e-5) and slope.item() == pytest.approx(
            -beta / 2, rel=1e-4
        )


def test_length_alone_is_worth_nothing():
    assert simpo(one(*[0.5] * 5), one(0.5), gamma=0.0).item() == pytest.approx(math.log(2), abs=1e-6)


def test_limits():
    assert simpo(one(0.9), one(1e-6), beta=20.0).item() < 1e-6
    assert simpo(one(1e-6), one(0.9), beta=20.0, gamma=0.0).item() == pytest.approx(20 * math.log(0.9e6), rel=1e-5)


def test_bad_values_are_refused_by_name():
    chosen, rejected, *_ = pairs()
    with pytest.raises(InputError, match="simpo: beta must be a number > 0, got 0"):
        simpo(chosen, rejected, beta=0)
    with pytest.raises(InputError, match="simpo: gamma must be a number >= 0, got -1"):
        simpo(chosen, rejected, gamma=-1)


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 1.0), (0.1, 0.5)])
def test_trl_has_the_same_loss(beta, gamma):
    pytest.importorskip("trl")
    chosen, rejected, *_ = pairs()
    wanted = trl_simpo(chosen, rejected, beta=beta, gamma=gamma)
    assert torch.allclose(simpo(chosen, rejected, beta=beta, gamma=gamma), wanted, atol=1e-5)


def test_twenty_steps_put_the_chosen_answers_likelihood_above_by_the_margin():
    own, its = (gaps(model, per_token=True) for model in (trained(simpo, recipes()).model, fine_tuned()))
    reached = (2.0 * own > 1.0).float().mean()  # beta times the gap of mean log-probabilities, against gamma
    assert reached > 0.9 and reached > (2.0 * its > 1.0).float().mean()
    assert own.mean() > 2 * its.mean()
