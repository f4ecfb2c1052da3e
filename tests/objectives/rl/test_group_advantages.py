from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.kernels.notes import noted
from plumbline.objectives import group_advantages
from plumbline.objectives.rl.spreads import batch_std, group_std


def test_by_hand():
    # group 7 holds 1, 3 (mean 2, unbiased std sqrt 2), group 2 holds 0, 0, 3 (mean 1, std sqrt 3)
    rewards, groups = torch.tensor([1.0, 0, 3, 0, 3]), torch.tensor([7, 2, 7, 2, 2])
    wanted = torch.tensor([-1, -1, 1, -1, 2]) / (torch.tensor([2, 3, 2, 3, 3.0]).sqrt() + 1e-4)
    assert torch.allclose(group_advantages(rewards, groups), wanted, atol=1e-6)
    assert group_advantages(rewards, groups, spread=None).tolist() == [-1, -1, 1, -1, 2]
    whole = math.sqrt(sum((r - 1.4) ** 2 for r in (1, 0, 3, 0, 3)) / 4)
    found = group_advantages(rewards, groups, spread=batch_std, eps=0.0)
    assert torch.allclose(found, torch.tensor([-1.0, -1, 1, -1, 2]) / whole)


@pytest.mark.parametrize("spread", [group_std, batch_std, None])
def test_constant_groups_are_exactly_zero_and_noted(spread):
    rewards = torch.tensor([0.9, 0.9, 0.9, 0.0, 1.0])  # the mean of three 0.9 is not 0.9 in float32
    with noted() as heard:
        found = group_advantages(rewards, torch.tensor([0, 0, 0, 1, 1]), spread=spread)
    assert (found[:3] == 0).all() and found[3] < 0 < found[4]
    assert heard["zero_spread"] == [pytest.approx(0.6)]
    assert (group_advantages(torch.full((6,), 0.3), torch.zeros(6).long(), spread=spread) == 0).all()


def test_as_trl():
    trl = pytest.importorskip("trl.trainer.utils")
    rewards = torch.randn(6, 4)
    std = trl.nanstd(rewards, dim=1)[:, None]
    theirs = (rewards - rewards.mean(1, keepdim=True)) / (std + 1e-4)
    ours = group_advantages(rewards.flatten(), torch.arange(6).repeat_interleave(4))
    assert torch.allclose(ours, theirs.flatten(), atol=1e-5)


def test_whole_numbers_and_bools_are_rewards_too():
    groups = torch.tensor([0, 0])
    assert group_advantages(torch.tensor([True, False]), groups, spread=None).tolist() == [0.5, -0.5]
    assert group_advantages(torch.tensor([2, 4]), groups, spread=None).tolist() == [-1, 1]


def test_a_group_of_one_is_refused():
    with pytest.raises(InputError, match="groups must be of two rows or more, got one row in group 5; sample several"):
        group_advantages(torch.zeros(3), torch.tensor([4, 5, 4]))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_reward_that_is_no_number_is_refused_by_row(bad):
    with pytest.raises(InputError, match=f"rewards must be finite, got {bad} in row 2; mend the reward function"):
        group_advantages(torch.tensor([0.0, 1.0, bad, 0.0]), torch.zeros(4).long())


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"groups must be \[N\] beside rewards \[N\], got \(\(2, 2\), \(2, 2\)\)"):
        group_advantages(torch.zeros(2, 2), torch.zeros(2, 2).long())
