from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import npo


def test_by_hand():
    # pi = 1/2 * 1/4, ref = 1/2 * 1/2: the ratio is 1/2 and -2 log sigma(log 2) = 2 log(3/2)
    forget = Scored(torch.tensor([[0.5, 0.25]]).log())
    ref = Scored(torch.tensor([[0.5, 0.5]]).log())
    assert npo(forget, ref, beta=1.0).item() == pytest.approx(2 * math.log(1.5), abs=1e-6)


def test_as_beta_tends_to_zero_the_gradient_is_gradient_ascents():
    logps = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    (found,) = torch.autograd.grad(npo(Scored(logps), Scored(torch.tensor([[-1.5, -1.0]])), beta=1e-5).sum(), logps)
    assert torch.allclose(found, torch.ones(1, 2), atol=1e-4)


def test_beta_zero_is_refused_by_name():
    x = Scored(torch.zeros(1, 1))
    with pytest.raises(InputError, match="npo: beta must be a number > 0, got 0"):
        npo(x, x, beta=0)
