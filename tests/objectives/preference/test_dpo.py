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
from plumbline.lab.tiny import tiny
from plumbline.objectives import dpo


def one(*probabilities: float) -> Scored:
    return Scored(torch.tensor([probabilities]).log())


def test_by_hand():
    # ratios: chosen (1/2 * 1/2) / (1/4 * 1/2) = 2, rejected (1/4) / (1/2) = 1/2: the margin is log 4
    pair = one(0.5, 0.5), one(0.25), one(0.25, 0.5), one(0.5)
    assert dpo(*pair, beta=1.0).item() == pytest.approx(math.log(1 + 1 / 4), abs=1e-6)
    assert dpo(*pair, beta=0.5).item() == pytest.approx(math.log(1 + 1 / 2), abs=1e-6)
    smoothed = 0.9 * math.log(1 + 1 / 4) + 0.1 * math.log(1 + 4)
    assert dpo(*pair, beta=1.0, label_smoothing=0.1).item() == pytest.approx(smoothed, abs=1e-6)


def test_at_the_reference_the_loss_is_log_two_and_the_gradient_half_beta():
    chosen, rejected, *_ = pairs()
    logps = chosen.logps.clone().requires_grad_()
    loss = dpo(Scored(logps, chosen.mask), rejected, chosen, rejected, beta=0.3)
    assert torch.allclose(loss, torch.full((5,), math.log(2)))
    (slope,) = torch.autograd.grad(loss.sum(), logps)
    assert torch.allclose(slope, torch.where(chosen.mask, -0.15, 0.0), atol=1e-7)


def test_the_gradient_is_the_papers():
    # -beta sigmoid(r_l - r_w) (grad log pi(y_w) - grad log pi(y_l))
    chosen, rejected, chosen_ref, rejected_ref = pairs()
    w, loser = chosen.logps.clone().requires_grad_(), rejected.logps.clone().requires_grad_()
    loss = dpo(Scored(w, chosen.mask), Scored(loser, rejected.mask), chosen_ref, rejected_ref, beta=0.7)
    up, down = torch.autograd.grad(loss.sum(), (w, loser))
    rewards = 0.7 * (chosen.total() - chosen_ref.total()), 0.7 * (rejected.total() - rejected_ref.total())
    weight = 0.7 * torch.sigmoid(rewards[1] - rewards[0])[:, None]
    assert torch.allclose(up, torch.where(chosen.mask, -weight, 0.0), atol=1e-6)
    assert torch.allclose(down, torch.where(rejected.mask, weight, 0.0), atol=1e-6)


def test_limits():
    good = one(0.99), one(1e-6), one(0.5), one(0.5)
    assert dpo(*good, beta=100.0).item() < 1e-6
    bad = good[1], good[0], good[2], good[3]
    margin = math.log(0.99) - math.log(1e-6)
    assert dpo(*bad, beta=100.0).item() == pytest.approx(100 * margin, rel=1e-4)  # grows linearly, never overflows
    assert dpo(*bad, beta=1e-6).item() == pytest.approx(math.log(2), abs=1e-4)


def test_bad_values_are_refused_by_name():
    pair = pairs()
    with pytest.raises(InputError, match="dpo: beta must be a number > 0, got 0"):
        dpo(*pair, beta=0.0)
    with pytest.raises(InputError, match="dpo: label_smoothing must be a number >= 0 and < 0.5, got 0.5"):
        dpo(*pair, label_smoothing=0.5)


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_trl_has_the_same_loss(beta):
    pytest.importorskip("trl")
    assert torch.allclose(dpo(*pairs(), beta=beta), trl_dpo("sigmoid", pairs(), beta), atol=1e-5)


def test_conservative_dpo_is_trls_robust_loss_before_its_scaling():
    pytest.importorskip("trl")
    # robust = ((1-e) right - e wrong) / (1-2e); ours adds the second: ours = (1-2e) robust + 2 e wrong
    e, pair = 0.1, pairs()
    flipped = dpo(pair[1], pair[0], pair[3], pair[2], beta=0.5)
    wanted = (1 - 2 * e) * trl_dpo("robust", pair, 0.5, e) + 2 * e * flipped
    assert torch.allclose(dpo(*pair, beta=0.5, label_smoothing=e), wanted, atol=1e-5)


def test_a_common_prefix_adds_nothing_to_the_margin_or_its_gradient():
    # RISE: a pair that differs in one step is trained by that step alone (the model's norms round to float32)
    model, frozen = tiny("llama", seed=1).double(), tiny("llama", seed=2).double()
    ids = torch.tensor([[1, 9, 17, 25, 33, 41, 49]])
    other = ids.clone()
    other[0, 5:] = torch.tensor([60, 70])

    def gradient(first_scored: int) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.arange(7)[None] >= first_scored
        sides = [Scored.of(m, x, mask=mask) for m in (model, frozen) for x in (ids, other)]
        loss = dpo(*sides, beta=0.4).sum()
        return loss.detach(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    whole, slope = gradient(1)  # the four tokens of the prefix are scored
    differing, its_slope = gradient(5)
    assert abs(whole - differing) < 1e-12
    assert its_slope.norm() > 1e-2 and (slope - its_slope).norm() < 1e-6 * its_slope.norm()
    later, later_slope = gradient(6)  # and the first differing token does count
    assert abs(later - differing) > 1e-3 and (later_slope - its_slope).norm() > 1e-2 * its_slope.norm()


def test_twenty_steps_part_the_answers_more_than_fine_tuning():
    before = gaps(base())
    own, its = (gaps(model) - before for model in (trained(dpo, recipes()).model, fine_tuned()))
    assert own.mean() > 2 * its.mean() > 0  # on held-out requests, nats
    assert (own > 0).float().mean() > 0.9
