from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.objectives.pretrain.spherical import log_spherical_softmax, log_taylor_softmax, squared_error

WORKED = torch.tensor([[[2.0, -1.0, 0.0]]], dtype=torch.float64)  # sum 1, squares 5


def of(scores):
    return Scored.from_logits(scores, torch.zeros(scores.shape[:2], dtype=torch.long), shift=False)


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        (lambda x: log_spherical_softmax(x, floor=0.5), -math.log(4.5 / 6.5)),
        (lambda x: log_taylor_softmax(x), -math.log(5 / (3 + 1 + 2.5))),
        (lambda x: squared_error(x), (2 - 1) ** 2 + 1 + 0),
    ],
)
def test_by_hand(loss, wanted):
    assert loss(of(WORKED)).item() == pytest.approx(wanted, abs=1e-9)


def test_numerators_over_the_vocabulary_are_a_distribution():
    scores = torch.randn(1, 1, 7, generator=generator(0, "spherical"), dtype=torch.float64).expand(1, 7, 7)
    x = Scored.from_logits(scores, torch.arange(7)[None], shift=False)
    for loss in (log_spherical_softmax, log_taylor_softmax):
        assert (-loss(x)).exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_masked_positions_count_for_nothing():
    x = Scored.from_logits(
        torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.long), torch.tensor([[1, 0]]), shift=False
    )
    for loss in (log_spherical_softmax, log_taylor_softmax, squared_error):
        assert loss(x)[0, 1] == 0 and loss(x)[0, 0] != 0
