from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.preference.peer import pairs, trl_dpo
from tests.objectives.preference.recipes import fine_tuned, gaps
from tests.objectives.preference.recipes import pairs as recipes
from tests.short_training import base, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import dpo, dpo_norm


def one(*probabilities: float) -> Scored:
    return Scored(torch.tensor([probabilities]).log())


def test_by_hand():
    # mean log-ratios: chosen (log 2 + log 1)/2 = log(2)/2, rejected log(1/2): the margin is 3/2 log 2
    loss = dpo_norm(one(0.5, 0.5), one(0.25), one(0.25, 0.5), one(0.5), beta=2.0)
    assert loss.item() == pytest.approx(math.log(1 + 2**-3), abs=1e-6)


def test_on_one_token_it_is_dpo():
    pair = one(0.5), one(0.25), one(0.4), one(0.3)
    assert torch.allclose(dpo_norm(*pair, beta=0.7), dpo(*pair, beta=0.7))


def test_repeating_an_answer_changes_nothing_while_dpos_margin_grows():
    chosen, rejected, chosen_ref, rejected_ref = one(0.5, 0.3), one(0.2), one(0.4, 0.3), one(0.25)
    longer = one(*[0.5, 0.3] * 4), rejected, one(*[0.4, 0.3] * 4), rejected_ref
    short = chosen, rejected, chosen_ref, rejected_ref
    assert torch.allclose(dpo_norm(*longer), dpo_norm(*short), atol=1e-6)
    assert dpo(*longer).item() < dpo(*short).item() - 0.02


def test_each_token_of_an_answer_pulls_one_over_its_length():
    chosen, rejected, chosen_ref, rejected_ref = pairs()
    logps = chosen.logps.clone().requires_grad_()
    loss = dpo_norm(Scored(logps, chosen.mask), rejected, chosen_ref, rejected_ref, beta=2.0)
    (slope,) = torch.autograd.grad(loss.sum(), logps)
    margin = chosen.mean() - chosen_ref.mean() - rejected.mean() + rejected_ref.mean()
    wanted = -2.0 * torch.sigmoid(-2.0 * margin)
    assert torch.allclose(slope.sum(-1), wanted, atol=1e-6)
    assert torch.allclose(slope, torch.where(chosen.mask, (wanted / chosen.lengths())[:, None], 0.0), atol=1e-6)


def test_beta_zero_is_refused_by_name():
    with pytest.raises(InputError, match="dpo_norm: beta must be a number > 0, got 0"):
        dpo_norm(*pairs(), beta=0)


@pytest.mark.parametrize("beta", [0.5, 5.0])
def test_trl_has_the_same_loss(beta):
    pytest.importorskip("trl")
    assert torch.allclose(dpo_norm(*pairs(), beta=beta), trl_dpo("sigmoid_norm", pairs(), beta), atol=1e-5)


def test_twenty_steps_part_the_answers_more_per_token_than_fine_tuning():
    before = gaps(base(), per_token=True)
    own, its = (gaps(m, per_token=True) - before for m in (trained(dpo_norm, recipes()).model, fine_tuned()))
    assert own.mean() > 2 * its.mean() > 0
    assert (own > 0).float().mean() > 0.9
