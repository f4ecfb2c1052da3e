from __future__ import annotations

from functools import partial

import pytest
import torch
from tests.objectives.preference.peer import pairs, trl_dpo
from tests.objectives.preference.recipes import fine_tuned, gaps
from tests.objectives.preference.recipes import pairs as recipes
from tests.short_training import base, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import ipo


def one(*values: float) -> Scored:
    return Scored(torch.tensor([values]))


def test_by_hand():
    # mean log-ratios 1.5 and -0.5: the gap of 2 misses 1 / (2 * 0.5) by 1
    pair = one(-1.0, -2.0), one(-3.0), one(-2.0, -4.0), one(-2.5)
    assert ipo(*pair, beta=0.5).item() == pytest.approx(1.0)
    assert ipo(*pair, beta=0.25).item() == pytest.approx(0.0)
    assert ipo(*pair, beta=0.1).item() == pytest.approx(9.0)


def test_the_pull_turns_round_at_the_target_gap():
    for gap, sign in ((4.9, -1), (5.0, 0), (5.1, 1)):  # 1 / (2 beta) = 5
        logps = torch.tensor([[gap - 8.0]], requires_grad=True)
        (slope,) = torch.autograd.grad(ipo(Scored(logps), one(-3.0), one(-8.0), one(-3.0)).sum(), logps)
        assert slope.item() == pytest.approx(2 * (gap - 5.0), abs=1e-5) and round(slope.item(), 4) * sign >= 0


def test_a_larger_beta_asks_for_a_smaller_gap_and_none_at_all_in_the_limit():
    pair = one(-1.0), one(-1.0), one(-1.0), one(-1.0)  # at the reference
    assert ipo(*pair, beta=1e6).item() < 1e-9
    assert ipo(*pair, beta=0.1).item() == pytest.approx(25.0)


def test_beta_zero_is_refused_by_name():
    with pytest.raises(InputError, match="ipo: beta must be a number > 0, got 0"):
        ipo(*pairs(), beta=0)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_trl_has_the_same_loss(beta):
    pytest.importorskip("trl")
    assert torch.allclose(ipo(*pairs(), beta=beta), trl_dpo("ipo", pairs(), beta), atol=1e-5)


def test_twenty_steps_bring_the_gap_to_its_target_and_not_beyond():
    before = gaps(base(), per_token=True)
    own, its = (
        gaps(m, per_token=True) - before for m in (trained(partial(ipo, beta=1.0), recipes()).model, fine_tuned())
    )
    assert 0.1 < own.mean() < 1.0  # nats per token on held-out requests; the target is 0.5
    assert (own - 0.5).square().mean() < 0.5 * (its - 0.5).square().mean()
