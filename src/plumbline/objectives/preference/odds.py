"""Odds of probabilities that are known by their logarithm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SWITCH = -math.log(2.0)


def log1mexp(x: Tensor) -> Tensor:
    r""":math:`\log(1 - e^x)` for :math:`x \le 0`, exact to rounding at both ends, with finite gradients below 0.

    Below :math:`-\ln 2` it is ``log1p(-exp(x))``, above ``log(-expm1(x))``: each where it does not cancel
    (Maechler, 2012). ``-inf`` at 0.
    """
    far = x < _SWITCH
    low = torch.where(far, x, _SWITCH)  # each branch is kept where it is finite: where() passes NaN gradients on
    high = torch.where(far, _SWITCH, x)
    return torch.where(far, torch.log1p(-torch.exp(low)), torch.log(-torch.expm1(high)))


def log_odds(logp: Tensor) -> Tensor:
    r""":math:`\log\frac{p}{1-p} = \log p - \log(1 - p)` of log-probabilities below 0, any shape.

    A probability that has rounded to 1 counts as the largest float below it, so the odds stay finite.
    """
    below_one = -torch.finfo(logp.dtype).eps / 2
    inside = logp.clamp(max=below_one)
    return inside - log1mexp(inside)
