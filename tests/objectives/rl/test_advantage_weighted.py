from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.rl.digits import imitated, practised, rate

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import advantage_weighted, nll


def test_by_hand():
    x = Scored(torch.tensor([[-1.0, -2.0, -4.0]]), torch.tensor([[True, True, False]]))
    with noted() as heard:
        assert advantage_weighted(x, torch.tensor([[0.5, 0.0, 7.0]])).item() == 0.5
    assert heard["credited"] == [0.5]
    assert advantage_weighted(x, torch.tensor([-2.0])).item() == -6
    found = advantage_weighted(x, torch.tensor([[0.5, 0.0, 7.0]]), weight=lambda a: (a / 0.5).exp())
    assert found.item() == pytest.approx(math.e + 2)


def test_advantages_of_one_are_imitation():
    x = Scored(-torch.rand(3, 4))
    assert torch.allclose(advantage_weighted(x, torch.ones(3)), nll(x).sum(-1))


def test_gradient_is_the_weight_and_the_weight_gets_none():
    logps, a = torch.zeros(2, 2, requires_grad=True), torch.tensor([[1.0, -2.0], [0.0, 3.0]], requires_grad=True)
    slope, none = torch.autograd.grad(advantage_weighted(Scored(logps), a).sum(), (logps, a), allow_unused=True)
    assert torch.equal(slope, -a) and none is None


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"advantage_weighted: advantages must be of shape \[2\] or \[2,3\]"):
        advantage_weighted(Scored(torch.zeros(2, 3)), torch.zeros(3, 2))


def test_zoo_base_learns_the_rule_that_pays():
    found = rate(practised(lambda s: s.mean(advantage_weighted(s.x, s.step_credit))))
    assert found > imitated() + 0.15, found
