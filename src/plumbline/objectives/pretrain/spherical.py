"""The spherical family: losses that know only the label's score, the sum of the scores and the sum of their squares.

Each takes the trained model ``x`` and returns [B,T], 0 where masked; none needs a pass over the vocabulary
(``Scored.moments``). Source: Efficient Exact Gradient Update for training Deep Networks with Very
Large Sparse Targets (Vincent et al., 2015); An Exploration of Softmax Alternatives Belonging to the Spherical Loss
Family (de Brébisson and Vincent, 2016).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from plumbline.core.scored import Scored


def log_spherical_softmax(x: Scored, *, floor: float = 1e-3) -> Tensor:
    r""":math:`-\log\frac{o_y^2 + \epsilon}{\sum_v o_v^2 + V\epsilon}` nats; blind to the signs of the scores.

    Args:
        floor: :math:`\epsilon`, which keeps a score of 0 finite (our judgement).
    """
    target, _, square, vocab = x.moments()
    loss = (square + floor).log() + math.log(vocab) - (target.square() + floor).log()
    return torch.where(x.mask, loss, 0.0)


def log_taylor_softmax(x: Scored) -> Tensor:
    r""":math:`-\log\frac{1 + o_y + o_y^2/2}{\sum_v (1 + o_v + o_v^2/2)}` nats; numerators are at least 1/2."""
    target, mean, square, vocab = x.moments()
    loss = (mean + square / 2).log1p() + math.log(vocab) - (target + target.square() / 2).log1p()
    return torch.where(x.mask, loss, 0.0)


def squared_error(x: Scored) -> Tensor:
    r""":math:`\sum_v (o_v - 1[v = y])^2 = \sum_v o_v^2 - 2 o_y + 1`."""
    target, _, square, vocab = x.moments()
    return torch.where(x.mask, vocab * square - 2 * target + 1, 0.0)
