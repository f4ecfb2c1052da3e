from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.rl.digits import imitated, practised, rate
from tests.objectives.rl.trl_grpo import agree, case, trl_loss

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import grpo, reference_kl


def ratios(*values: float) -> tuple[Scored, Scored]:
    return Scored(torch.tensor([values]).log()), Scored(torch.zeros(1, len(values)))


def test_by_hand():
    # A = 1: min(1.5, 1.2), min(0.5, 0.8), 1 -> mean of 1.2, 0.5, 1
    x, old = ratios(1.5, 0.5, 1.0)
    assert grpo(x, torch.tensor([1.0]), old).item() == pytest.approx(-(1.2 + 0.5 + 1) / 3, abs=1e-6)
    # A = -2: min(-3, -2.4), min(-1, -1.6), -2
    assert grpo(x, torch.tensor([-2.0]), old).item() == pytest.approx((3 + 1.6 + 2) / 3, abs=1e-6)


def test_dual_clip_cap_and_weights_by_hand():
    x, old = ratios(5.0)
    a = torch.tensor([-1.0])
    assert grpo(x, a, old).item() == pytest.approx(5, abs=1e-5)
    assert grpo(x, a, old, dual_clip=3.0).item() == pytest.approx(3, abs=1e-5)
    assert grpo(x, a, old, cap=4.0).item() == pytest.approx(4, abs=1e-5)
    assert grpo(x, a, old, torch.tensor([[0.5]])).item() == pytest.approx(2.5, abs=1e-5)
    assert grpo(x, -a, old, dual_clip=1.1).item() == pytest.approx(-1.2, abs=1e-5)  # A > 0 knows no dual clip


def test_on_policy_gradient_is_the_policy_gradient_averaged_over_each_row():
    logps = (-torch.rand(2, 4)).requires_grad_()
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    a = torch.tensor([0.7, -1.3])
    loss = grpo(Scored(logps, mask), a, low=0.0, high=0.0)
    (found,) = torch.autograd.grad(loss.sum(), logps)
    wanted = -a[:, None] * mask / torch.tensor([[4.0], [2.0]])
    assert torch.allclose(loss, -a) and torch.allclose(found, wanted)


def test_clipped_tokens_get_no_gradient_and_are_noted():
    logps = torch.tensor([[1.5, 0.5, 1.5, 1.0]]).log().requires_grad_()
    a = torch.tensor([[1.0, -1.0, -1.0, 1.0]])
    with noted() as heard:
        loss = grpo(Scored(logps), a, Scored(torch.zeros(1, 4)))
    (found,) = torch.autograd.grad(loss.sum(), logps)
    assert (found[0, :2] == 0).all() and (found[0, 2:] != 0).all()
    assert heard["clip_low"] == [0.25] and heard["clip_high"] == [0.25] and heard["ratio"] == [pytest.approx(1.125)]


def test_weights_and_advantages_get_no_gradient():
    a, w = torch.ones(1, requires_grad=True), torch.ones(1, 1, requires_grad=True)
    x = Scored(torch.zeros(1, 2, requires_grad=True))
    assert torch.autograd.grad(grpo(x, a, None, w).sum(), (a, w), allow_unused=True) == (None, None)


def test_far_ratios_stay_finite():
    logps = torch.tensor([[0.0, -200.0]], requires_grad=True)
    loss = grpo(Scored(logps), torch.tensor([-1.0]), Scored(torch.tensor([[-200.0, 0.0]])))
    assert torch.isfinite(loss).all() and torch.isfinite(torch.autograd.grad(loss.sum(), logps)[0]).all()
    # the first token's ratio counts as e^20, the second's is clipped to 0.8
    assert loss.item() == pytest.approx((math.exp(20) + 0.8) / 2, rel=1e-5)


@pytest.mark.parametrize("cap", [None, 1.3])
@pytest.mark.parametrize("weighed", [False, True])
def test_as_trl(cap, weighed):
    new, old, _, mask, a = case()
    w = torch.rand(6, 9) + 0.5 if weighed else None
    ours = grpo(Scored(new, mask), a, Scored(old, mask), w, cap=cap).mean()
    agree(ours, trl_loss(new, mask, a, old=old, cap=cap, weights=w), new)


@pytest.mark.parametrize("weigh", [False, True])
def test_with_reference_kl_as_trl(weigh):
    new, old, ref, mask, a = case()
    x, x_old = Scored(new, mask), Scored(old, mask)
    kl = reference_kl(x, Scored(ref, mask), x_old if weigh else None)
    ours = (grpo(x, a, x_old) + 0.3 * kl.sum(-1) / x.lengths()).mean()
    agree(ours, trl_loss(new, mask, a, old=old, ref=ref, beta=0.3, weigh_kl=weigh), new)


def test_on_policy_as_trl():
    new, _, _, mask, a = case()
    agree(grpo(Scored(new, mask), a).mean(), trl_loss(new, mask, a), new)


def test_shapes_that_do_not_fit_are_refused():
    x = Scored(torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"grpo: advantages must be of shape \[2\] or \[2,3\], got \(3,\)"):
        grpo(x, torch.zeros(3))
    with pytest.raises(InputError, match="grpo: weights must be"):
        grpo(x, torch.zeros(2), None, torch.zeros(2, 4))
    with pytest.raises(InputError, match="grpo: x_old must be of the shape of x"):
        grpo(x, torch.zeros(2), Scored(torch.zeros(2, 4)))


def test_zoo_base_learns_the_rule_that_pays():
    found = rate(practised(grpo, logps="old_logps"))
    assert found > imitated() + 0.15, found
