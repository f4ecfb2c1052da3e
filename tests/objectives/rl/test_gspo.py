from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.rl.digits import imitated, practised, rate
from tests.objectives.rl.trl_grpo import agree, case, trl_loss

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import gspo


def test_by_hand():
    # token ratios 4, 1: s = 2; clipped to 1.0004 for A = 1, free for A = -1
    x, old = Scored(torch.tensor([[4.0, 1.0]]).log()), Scored(torch.zeros(1, 2))
    assert gspo(x, torch.tensor([1.0]), old).item() == pytest.approx(-1.0004, abs=1e-6)
    assert gspo(x, torch.tensor([-1.0]), old).item() == pytest.approx(2, abs=1e-6)


def test_gradient_is_the_sequence_ratios():
    logps = torch.tensor([[0.3, -0.1, 9.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    loss = gspo(Scored(logps, mask), torch.tensor([-1.5]), Scored(torch.zeros(1, 3), mask))
    (found,) = torch.autograd.grad(loss.sum(), logps)
    assert torch.allclose(found, 1.5 * math.exp(0.1) * torch.tensor([[0.5, 0.5, 0.0]]))


@pytest.mark.parametrize("spread", [0.02, 0.4])
@pytest.mark.parametrize("cap", [None, 1.01])
def test_as_trl(spread, cap):
    new, old, _, mask, a = case(spread=spread)
    ours = gspo(Scored(new, mask), a, Scored(old, mask), low=3e-3, high=4e-3, cap=cap).mean()
    agree(ours, trl_loss(new, mask, a, level="sequence", old=old, low=3e-3, high=4e-3, cap=cap), new)


def test_as_trl_with_a_weight_per_row():
    new, old, _, mask, a = case()
    w = torch.rand(6, 1)
    ours = gspo(Scored(new, mask), a, Scored(old, mask), w, low=0.2, high=0.2).mean()
    agree(ours, trl_loss(new, mask, a, level="sequence", old=old, weights=w), new)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"gspo: advantages must be of shape \[2\] or \[2,3\], got \(4,\)"):
        gspo(Scored(torch.zeros(2, 3)), torch.zeros(4))


def test_zoo_base_learns_the_rule_that_pays():
    found = rate(practised(gspo, logps="old_logps"))
    assert found > imitated() + 0.15, found
