from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.preference.answers import asked, preferred

from plumbline.core.errors import InputError
from plumbline.kernels.notes import noted
from plumbline.objectives.preference import lsc
from plumbline.objectives.preference.base_rewards import base_quantile


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_by_hand():
    assert lsc(torch.tensor([0.0, math.log(3)]), torch.zeros(2)).tolist() == pytest.approx(
        [-math.log(2), math.log(0.75)]
    )


def test_the_sum_is_the_log_probability_of_all_being_good():
    rewards, reference = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([0.2, 1.0])
    wanted = [sigmoid(r1 - 0.2) * sigmoid(r2 - 1.0) for r1, r2 in rewards.tolist()]
    assert lsc(rewards, reference).exp().tolist() == pytest.approx(wanted)


def test_its_slope_is_the_probability_of_falling_short_and_fades():
    rewards = torch.tensor([-30.0, 0.0, 2.0, 40.0], requires_grad=True)
    (slope,) = torch.autograd.grad(lsc(rewards, torch.ones(4)).sum(), rewards)
    assert slope.tolist() == pytest.approx([sigmoid(1 - r) for r in (-30.0, 0.0, 2.0, 40.0)], abs=1e-6)
    assert bool((slope.diff() < 0).all())


def test_extremes_stay_finite_and_float32():
    found = lsc(torch.tensor([-1e4, 1e4], dtype=torch.bfloat16), torch.zeros(2))
    assert found.dtype == torch.float32 and found[0] == pytest.approx(-1e4, rel=1e-2) and found[1] == 0


def test_the_reference_is_the_quantile_of_the_prompts_own_samples():
    base = torch.stack([torch.arange(21.0), torch.arange(21.0) + 100])
    assert base_quantile(base).tolist() == pytest.approx([17.0, 117.0])
    two = base_quantile(torch.stack([base, -base], -1), quantile=0.0)
    assert two.tolist() == [[0.0, -20.0], [100.0, -120.0]]


def test_a_prompt_of_few_samples_gets_the_quantile_of_all_and_says_so():
    base = torch.full((2, 20), torch.nan)
    base[0] = torch.arange(20.0)
    base[1, :3] = torch.tensor([1000.0, 1001.0, 1002.0])
    with noted() as found:
        reference = base_quantile(base, quantile=1.0)
    assert reference.tolist() == [19.0, 1002.0] and found["global_reference"] == [0.5]
    assert base_quantile(base, quantile=0.0).tolist() == [0.0, 0.0]
    assert base_quantile(base, quantile=0.0, least=3).tolist() == [0.0, 1000.0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: lsc(torch.zeros(2, 2, 2), torch.zeros(2)), r"lsc: rewards must be of shape \[B\] or \[B,K\]"),
        (lambda: lsc(torch.zeros(4), torch.zeros(3)), "lsc: reference must be of a shape that broadcasts"),
        (lambda: lsc(torch.zeros(4), torch.zeros(4, 4)), "lsc: reference must be of a shape that broadcasts"),
        (lambda: base_quantile(torch.zeros(3)), "base_quantile: base_rewards must be of shape"),
        (lambda: base_quantile(torch.zeros(3, 4), quantile=85), "base_quantile: quantile must be within"),
        (lambda: base_quantile(torch.full((1, 2), torch.nan)), "at least one number for each reward"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_twenty_steps_prefer_the_answer_that_is_good_by_both():
    rows = asked((6.0, 2.0, -2.0), (-3.0, 0.5, -2.0))  # the first is excellent by one reward, the second good by both
    reference = torch.tensor([1.0, 0.0])

    def both(s):
        return torch.stack([s.r0, s.r1], -1)

    ours = preferred(lambda s: lsc(both(s), reference), rows, over=(1, 0))
    linear = preferred(lambda s: both(s).sum(-1), rows, over=(1, 0))
    assert ours > linear + 1.0
