from __future__ import annotations

import pytest
import torch
from tests.objectives.rl.digits import imitated, practised, rate
from tests.objectives.rl.trl_grpo import agree, case, trl_loss

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import dapo, grpo


def test_by_hand():
    x, old = Scored(torch.tensor([[1.5, 1.25, 0.5, 1.0]]).log()), Scored(torch.zeros(1, 4))
    assert torch.allclose(dapo(x, torch.tensor([1.0]), old), -torch.tensor([[1.28, 1.25, 0.5, 1.0]]))
    assert torch.allclose(dapo(x, torch.tensor([-1.0]), old), torch.tensor([[1.5, 1.25, 0.8, 1.0]]))


def test_every_token_weighs_the_same_where_grpo_favours_short_rollouts():
    logps = torch.zeros(2, 8, requires_grad=True)
    x, a = Scored(logps, torch.arange(8) < torch.tensor([[2], [8]])), torch.tensor([1.0, 1.0])
    ours, theirs = (torch.autograd.grad(f(x, a).sum(), logps, retain_graph=True)[0] for f in (dapo, grpo))
    assert ours[0, 0] == ours[1, 0] and theirs[0, 0] == 4 * theirs[1, 0]


def test_masked_tokens_are_zero_whatever_they_hold():
    mask = torch.tensor([[True, False]])
    x = Scored(torch.tensor([[-1.0, -torch.inf]]), mask)
    assert dapo(x, torch.tensor([[1.0, torch.nan]]), x.detach()).tolist() == [[-1, 0]]


@pytest.mark.parametrize("kind", ["dapo", "bnpo"])
def test_as_trl(kind):
    new, old, _, mask, a = case()
    ours = dapo(Scored(new, mask), a, Scored(old, mask)).sum() / mask.sum()
    agree(ours, trl_loss(new, mask, a, kind=kind, old=old, high=0.28), new)


def test_as_trl_with_an_advantage_per_token():
    new, old, _, mask, _ = case()
    a = torch.linspace(-1, 1, mask.numel()).view_as(mask)
    ours = dapo(Scored(new, mask), a, Scored(old, mask)).sum() / mask.sum()
    agree(ours, trl_loss(new, mask, a, kind="dapo", old=old, high=0.28), new)


def test_a_wrong_bound_is_refused():
    with pytest.raises(InputError, match="dapo: low must be a number >= 0 and <= 1, got 1.5"):
        dapo(Scored(torch.zeros(1, 1)), torch.zeros(1), low=1.5)


def test_zoo_base_learns_the_rule_that_pays():
    found = rate(practised(dapo, logps="old_logps"))
    assert found > imitated() + 0.15, found
