from __future__ import annotations

import math

import pytest
import torch
from tests.short_training import base, row, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import focal, nll


def test_by_hand():
    x = Scored(torch.tensor([[0.5, 0.75]]).log())
    assert torch.allclose(focal(x), torch.tensor([[math.log(2) / 4, math.log(4 / 3) / 16]]))


def test_the_papers_two_numbers():
    # "100 times lower loss at p = 0.9, 1,000 times at p = 0.968", for gamma 2
    x = Scored(torch.tensor([[0.9, 0.968]]).log())
    assert (nll(x) / focal(x)).tolist()[0] == pytest.approx([100, 1000], rel=0.03)


def test_gamma_zero_is_likelihood():
    x = Scored(-torch.rand(2, 3), torch.tensor([[True, True, False], [True, False, False]]))
    assert torch.equal(focal(x, gamma=0.0), nll(x))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_gradient_is_the_papers(gamma):
    # with p the softmax probability: d loss / d log p = gamma p (1 - p)^(gamma - 1) log p - (1 - p)^gamma
    p = torch.tensor([[0.01, 0.3, 0.8, 0.999]], dtype=torch.float64)
    logps = p.log().requires_grad_()
    (slope,) = torch.autograd.grad(focal(Scored(logps), gamma=gamma).sum(), logps)
    assert torch.allclose(slope, gamma * p * (1 - p) ** (gamma - 1) * p.log() - (1 - p) ** gamma)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_certainty_has_a_finite_gradient(gamma):
    logps = torch.zeros(1, 2, requires_grad=True)
    loss = focal(Scored(logps, torch.tensor([[True, False]])), gamma=gamma)
    (slope,) = torch.autograd.grad(loss.sum(), logps)
    assert loss.tolist() == [[0.0, 0.0]] and bool(torch.isfinite(slope).all()) and slope[0, 1] == 0


def test_negative_gamma_is_refused():
    with pytest.raises(InputError, match="focal: gamma must be a number >= 0, got -1"):
        focal(Scored(torch.zeros(1, 1)), gamma=-1)


def test_training_leaves_easy_tokens_alone():
    lm = base()
    rows = [row(lm, f"Q: colour of box {i}?\nA:", " blue" if i % 2 else " green and red") for i in range(24)]
    before = -scored(lm, rows[16:]).total().sum()
    entropy = {}
    for loss in (focal, nll):
        x = scored(trained(loss, {"x": rows[:16]}).model, rows[16:], entropy=True)
        assert -x.total().sum() < 0.1 * before
        entropy[loss] = float(x.entropy().sum() / x.mask.sum())
    assert entropy[focal] > entropy[nll] + 0.05
