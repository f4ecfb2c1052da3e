from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.objectives.preference.peer import draw, pairs, trl_dpo
from tests.objectives.preference.recipes import fine_tuned, gaps, judged
from tests.short_training import base, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import bco, dpo
from plumbline.objectives.preference.bco_shift import RunningShift, balanced_shift


def of(*values: float) -> Scored:
    return Scored(torch.tensor(values)[:, None])


def unshifted(rewards: torch.Tensor, desirable: torch.Tensor) -> torch.Tensor:
    return rewards.new_zeros(())


def test_by_hand():
    # rewards log 4 and 0: the shift is log 2, both lie log 2 on their own side of it
    x, ref, up = of(math.log(0.8), -1.0), of(math.log(0.2), -1.0), torch.tensor([True, False])
    with noted() as heard:
        loss = bco(x, ref, up, beta=1.0)
    assert loss.tolist() == pytest.approx([math.log(1.5)] * 2, abs=1e-6)
    assert heard["shift"] == [pytest.approx(math.log(2), abs=1e-6)]
    weighted = bco(x, ref, up, torch.tensor([7.0, 3.0]), beta=1.0)  # read on bad rows only
    assert weighted.tolist() == pytest.approx([math.log(1.5), 3 * math.log(1.5)], abs=1e-6)


@pytest.mark.parametrize(("shift", "delta"), [(balanced_shift, -1.0), (lambda rewards, desirable: rewards.sum(), -2.0)])
def test_no_gradient_flows_through_the_shift(shift, delta):
    logps = torch.tensor([[-1.0], [-4.0]], requires_grad=True)  # rewards 1 and -3
    loss = bco(Scored(logps), of(-2.0, -1.0), torch.tensor([True, False]), beta=1.0, shift=shift)
    (slope,) = torch.autograd.grad(loss.sum(), logps)
    wanted = [-1 / (1 + math.exp(1 - delta)), 1 / (1 + math.exp(delta + 3))]
    assert slope[:, 0].tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("good", [True, False])
def test_a_batch_of_one_class(good):
    x, ref = draw("x", "x_ref")
    loss = bco(x, ref, torch.full((5,), good))
    assert loss.shape == (5,) and torch.isfinite(loss).all()


def test_with_a_shift_of_zero_it_is_trls_bco_pair():
    pytest.importorskip("trl")
    chosen, rejected, chosen_ref, rejected_ref = pairs()
    up = torch.ones(5, dtype=torch.bool)
    good = bco(chosen, chosen_ref, up, beta=0.4, shift=unshifted)
    bad = bco(rejected, rejected_ref, ~up, beta=0.4, shift=unshifted)
    assert torch.allclose(good + bad, trl_dpo("bco_pair", pairs(), 0.4), atol=1e-5)


def test_a_running_shift_follows_training():
    x, ref = draw("x", "x_ref")
    shift, up = RunningShift(), torch.tensor([True, False, True, False, False])
    rewards = 0.3 * (x.total() - ref.total())
    for _ in range(2):
        loss = bco(x, ref, up, beta=0.3, shift=shift)
    above = rewards - rewards.mean()
    wanted = torch.where(up, torch.log1p(torch.exp(-above)), torch.log1p(torch.exp(above)))
    assert torch.allclose(loss, wanted, atol=1e-5) and shift.count == 10


def test_it_bounds_dpo_from_above_and_best_at_the_mean():
    wanted, up = dpo(*pairs(), beta=0.5), torch.tensor([True, False])
    chosen, rejected, chosen_ref, rejected_ref = (side.total() for side in pairs())
    for i in range(5):
        x, ref = of(chosen[i], rejected[i]), of(chosen_ref[i], rejected_ref[i])
        best = bco(x, ref, up, beta=0.5).sum()
        other = bco(x, ref, up, beta=0.5, shift=lambda r, d: r.mean() + 0.3).sum()
        assert wanted[i] < best < other


def test_bad_values_are_refused_by_name():
    x, ref = draw("x", "x_ref")
    with pytest.raises(InputError, match="bco: beta must be a number > 0, got 0"):
        bco(x, ref, torch.ones(5, dtype=torch.bool), beta=0)
    with pytest.raises(InputError, match="bco: shift must be .*, got balanced"):
        bco(x, ref, torch.ones(5, dtype=torch.bool), shift="balanced")
    with pytest.raises(InputError, match=r"bco: desirable must be of shape \[5\], one a row, got \(4,\)"):
        bco(x, ref, torch.ones(4, dtype=torch.bool))
    with pytest.raises(InputError, match=r"bco: density_weight must be of shape \[5\], one a row, got \(5, 7\)"):
        bco(x, ref, torch.ones(5, dtype=torch.bool), torch.ones(5, 7))


@pytest.mark.parametrize("running", [False, True])
def test_twenty_steps_part_good_and_bad_more_than_fine_tuning(running):
    before, shift = gaps(base()), RunningShift()
    loss = partial(bco, shift=shift) if running else bco
    done = trained(loss, {"x": judged()["x"]}, lr=2e-4)
    own, its = (gaps(model) - before for model in (done.model, fine_tuned(2e-4)))
    assert own.mean() > 2 * its.mean() > 0 and (own > 0).float().mean() > 0.8
    assert shift.count == (160 if running else 0)  # 20 steps of 8; the rehearsal is not counted
