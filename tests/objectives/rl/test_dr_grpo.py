from __future__ import annotations

from functools import partial

import pytest
import torch
from tests.objectives.rl.digits import imitated, practised, rate
from tests.objectives.rl.trl_grpo import agree, case, trl_loss

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import dr_grpo


def test_by_hand():
    x, old = Scored(torch.tensor([[1.5, 0.5, 1.0]]).log()), Scored(torch.zeros(1, 3))
    assert dr_grpo(x, torch.tensor([1.0]), old, max_tokens=10).item() == pytest.approx(-0.27, abs=1e-6)


def test_on_policy_gradient_is_the_policy_gradient_over_the_constant():
    logps = torch.zeros(2, 4, requires_grad=True)
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    (found,) = torch.autograd.grad(dr_grpo(Scored(logps, mask), torch.tensor([2.0, -3.0]), max_tokens=5).sum(), logps)
    assert torch.allclose(found, torch.tensor([[-0.4] * 4, [0.6, 0, 0, 0]]))


def test_as_trl():
    new, old, _, mask, a = case()
    ours = dr_grpo(Scored(new, mask), a, Scored(old, mask), max_tokens=12).mean()
    agree(ours, trl_loss(new, mask, a, kind="dr_grpo", old=old, max_tokens=12), new)


def test_no_tokens_are_refused():
    with pytest.raises(InputError, match="dr_grpo: max_tokens must be a whole number >= 1, got 0"):
        dr_grpo(Scored(torch.zeros(1, 1)), torch.zeros(1), max_tokens=0)


def test_zoo_base_learns_the_rule_that_pays():
    found = rate(practised(partial(dr_grpo, max_tokens=8), logps="old_logps"))
    assert found > imitated() + 0.15, found
