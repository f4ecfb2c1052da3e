from __future__ import annotations

import math

import pytest
import torch

from plumbline.objectives.preference.odds import log1mexp, log_odds


def test_log1mexp_by_hand_and_at_both_ends():
    assert log1mexp(torch.tensor(math.log(0.25))).item() == pytest.approx(math.log(0.75), rel=1e-6)
    assert log1mexp(torch.tensor(-math.log(2.0))).item() == pytest.approx(-math.log(2.0), rel=1e-6)
    for x in (1e-7, 1e-3, 0.5, 0.693, 0.694, 5.0, 30.0):  # against float64 series that do not cancel
        wanted = math.log1p(-math.exp(-x)) if x > 1 else math.log(-math.expm1(-x))
        assert log1mexp(torch.tensor(-x)).item() == pytest.approx(wanted, rel=2e-6)
    assert log1mexp(torch.tensor(-30.0)).item() != 0.0  # what log(1 - exp(x)) rounds to


def test_log1mexp_has_finite_gradients_on_either_branch():
    x = torch.tensor([-1e-6, -0.5, -0.7, -40.0, -200.0], requires_grad=True)
    (slope,) = torch.autograd.grad(log1mexp(x).sum(), x)
    assert torch.isfinite(slope).all()
    assert torch.allclose(slope[1:3], -1 / torch.expm1(-x.detach()[1:3]), rtol=1e-5)  # -e^x / (1 - e^x)


def test_log_odds_is_the_logit():
    p = torch.tensor([0.01, 0.3, 0.5, 0.9, 0.999])
    assert torch.allclose(log_odds(p.log()), torch.logit(p), atol=1e-4)
    z = torch.linspace(-30, 10, 41, dtype=torch.float64)
    assert torch.allclose(log_odds(torch.nn.functional.logsigmoid(z)), z, atol=1e-9)


def test_a_certain_answer_has_finite_odds_and_no_gradient():
    x = torch.tensor([0.0, -math.inf], requires_grad=True)
    odds = log_odds(x[:1])
    assert 16 < odds.item() < 17  # of the float below 1
    assert torch.autograd.grad(odds.sum(), x)[0].tolist() == [0.0, 0.0]
    assert log_odds(torch.tensor(-math.inf)).item() == -math.inf
