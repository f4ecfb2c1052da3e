from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.objectives import step_advantages


def test_by_hand():
    # two solutions: (1,1,0) and (1,0,1) of the toy that is right iff step 2 is 1
    values = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 0.0, 0.0]])
    found = step_advantages(torch.tensor([[1, 2, 3], [1, 2, 3]]), values)
    assert found.tolist() == [[0, 0.5, 0], [0, -0.5, 0]]


def test_tokens_have_their_steps_advantage_and_others_none():
    steps = torch.tensor([[0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 0, 0]])
    values = torch.tensor([[0.2, 0.6, 0.5], [0.9, 1.0, torch.nan]])
    wanted = torch.tensor([[0, 0.4, 0.4, -0.1, -0.1, -0.1], [0, 0, 0.1, 0.1, 0, 0]])
    assert torch.allclose(step_advantages(steps, values), wanted)


def test_steps_sum_to_the_outcome_and_one_step_is_the_outcome():
    values = torch.cat([torch.rand(5, 7), torch.tensor([[1.0], [0], [1], [1], [0]])], 1)
    found = step_advantages(torch.arange(1, 8).expand(5, 7), values)
    assert torch.allclose(found.sum(-1), values[:, -1] - values[:, 0], atol=1e-6)
    assert step_advantages(torch.ones(1, 3).long(), torch.tensor([[0.25, 1.0]])).tolist() == [[0.75] * 3]


def test_changes_within_the_noise_of_the_rollouts_count_as_zero():
    values = torch.tensor([[0.5, 0.6, 1.0]])
    error = math.sqrt((0.25 + 0.24) / 8)  # 0.247: more than the first change, less than the second
    found = step_advantages(torch.tensor([[1, 2]]), values, rollouts=8)[0].tolist()
    assert found == pytest.approx([0, 0.4]) and error > 0.1
    assert step_advantages(torch.tensor([[1, 2]]), values, rollouts=100)[0, 0].item() == pytest.approx(0.1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="step_advantages: steps must be within 0 to 2, got 1 to 3; give a value"):
        step_advantages(torch.tensor([[1, 3]]), torch.zeros(1, 3))
    with pytest.raises(InputError, match="step_advantages: steps and values must be"):
        step_advantages(torch.tensor([1]), torch.zeros(1, 3))
    with pytest.raises(InputError, match="values must be a number for every step, got another in row 1"):
        step_advantages(torch.tensor([[1], [1]]), torch.tensor([[0.0, 1], [0, torch.nan]]))
    with pytest.raises(InputError, match="values must be a probability for every step, got another in row 0"):
        step_advantages(torch.tensor([[1]]), torch.tensor([[0.5, 1.2]]), rollouts=4)
