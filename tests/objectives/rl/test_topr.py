from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.rl.digits import imitated, practised, rate, rollouts, view

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.objectives import topr


def test_by_hand():
    # pi / mu = 2, 1/2, 1/2: only the wrong row that has become less likely is tapered
    x, mu = Scored(torch.tensor([[0.4], [0.2], [0.2]]).log()), Scored(torch.tensor([[0.2], [0.4], [0.4]]).log())
    with noted() as heard:
        found = topr(x, mu, torch.tensor([-1.0, 1.0, -1.0]))
    wanted = [math.log(0.4), -math.log(0.2), 0.5 * math.log(0.2)]
    assert found.tolist() == pytest.approx(wanted)
    assert heard["alpha"] == [pytest.approx(2.5 / 3)] and heard["positives"] == [pytest.approx(1 / 3)]


def test_the_ratio_is_the_sequences():
    x, mu = Scored(torch.tensor([[-1.0, -2.0]])), Scored(torch.tensor([[-2.0, -0.5]]))
    assert topr(x, mu, torch.tensor([-1.0])).item() == pytest.approx(-3 * math.exp(-0.5))


def test_baseline_moves_rewards_across_the_sign():
    x, mu = Scored(torch.tensor([[-2.0]])), Scored(torch.tensor([[-1.0]]))
    r = torch.tensor([0.5])
    assert topr(x, mu, r).item() == pytest.approx(1)
    assert topr(x, mu, r, baseline=1.0).item() == pytest.approx(-math.exp(-1))
    assert topr(x, mu, r, baseline=0.5).item() == 0


def test_gradients_are_imitation_for_right_and_that_of_the_ratio_for_wrong():
    logps = torch.tensor([[-1.0], [-3.0], [-90.0]], requires_grad=True)
    mu = Scored(torch.full((3, 1), -1.0))
    (found,) = torch.autograd.grad(topr(Scored(logps), mu, torch.tensor([1.0, -1.0, -1.0])).sum(), logps)
    leaf = torch.tensor(-3.0, requires_grad=True)
    (ratio,) = torch.autograd.grad((leaf + 1).exp(), leaf)
    assert found[0] == -1 and found[1].item() == pytest.approx(ratio.item()) and 0 <= found[2].item() < 1e-30


def test_masked_tokens_do_not_count():
    mask = torch.tensor([[True, False]])
    x, mu = Scored(torch.tensor([[-2.0, -9.0]]), mask), Scored(torch.tensor([[-1.0, torch.nan]]), mask)
    assert topr(x, mu, torch.tensor([-1.0])).item() == pytest.approx(-2 * math.exp(-1))


def test_missing_log_probabilities_are_refused():
    x = Scored(torch.zeros(2, 2))
    with pytest.raises(InputError, match="topr: x_sampler must be the behaviour policy's log-probabilities, got none"):
        topr(x, None, torch.zeros(2))
    lost = Scored(torch.tensor([[0.0, 0.0], [0.0, torch.nan]]))
    with pytest.raises(InputError, match="topr: x_sampler must be without NaN, got NaN in row 1; drop rows"):
        topr(x, lost, torch.zeros(2))
    with pytest.raises(InputError, match="topr: x_sampler and rewards must be of shapes"):
        topr(x, x, torch.zeros(3))


def test_zoo_base_learns_the_rule_that_pays_and_keeps_its_wrong_answers_possible():
    ours = practised(topr, logps="sampler_logps")
    plain = practised(lambda s: s.mean(-s.rewards * s.x.total()))
    wrong = torch.tensor([row["rewards"] < 0 for row in rollouts()])
    kept, lost = (view(lm).total()[wrong].mean() for lm in (ours, plain))
    assert rate(ours) > imitated() + 0.15 and kept > lost + 10, (kept, lost)
