from __future__ import annotations

import math

import pytest
import torch
from tests.short_training import base, row, scored, trained

from plumbline.core.scored import Scored
from plumbline.objectives import nll


def test_by_hand():
    x = Scored(torch.tensor([[0.5, 0.25], [0.125, 0.9]]).log(), torch.tensor([[True, True], [True, False]]))
    wanted = math.log(2) * torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert torch.allclose(nll(x), wanted)


def test_certainty_costs_nothing_and_impossibility_everything():
    x = Scored(torch.tensor([[0.0, -math.inf, -math.inf]]), torch.tensor([[True, True, False]]))
    assert nll(x).tolist() == [[0.0, math.inf, 0.0]]


def test_gradient_is_probability_less_label():
    z = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([[1, 2, 3], [4, 0, 1]])
    (slope,) = torch.autograd.grad(nll(Scored.from_logits(z, ids, shift=False)).sum(), z)
    assert torch.allclose(slope, z.softmax(-1).detach() - torch.nn.functional.one_hot(ids, 5))


def boxes(lm, numbers):
    return [row(lm, f"Q: colour of box {i}?\nA:", " blue" if i % 2 else " green and red") for i in numbers]


def test_training_lowers_held_out_nll_and_logs_the_token_mean():
    lm = base()
    rows, held_out = boxes(lm, range(8)), boxes(lm, range(8, 16))
    before, start = -scored(lm, held_out).mean(), scored(lm, rows)
    done = trained(nll, {"x": rows})
    after = -scored(done.model, held_out).mean()
    assert (after < before - 5).all()
    # rows of unequal length: the mean over tokens is not the mean of the rows' means
    assert start.mask.sum(-1).unique().numel() > 1
    token_mean, row_mean = (float(v) for v in (-start.total().sum() / start.mask.sum(), -start.mean().mean()))
    assert abs(token_mean - row_mean) > 0.01
    assert done.history[0]["loss"] == pytest.approx(token_mean, rel=1e-4)


def test_accumulated_micro_batches_are_one_batch():
    lm = base()
    rows = boxes(lm, range(8))
    whole = trained(nll, {"x": rows}, steps=1)
    parts = trained(nll, {"x": rows}, steps=1, batch_size=2, gradient_accumulation_steps=4)
    assert parts.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=1e-4)
    assert parts.history[0]["grad_norm"] == pytest.approx(whole.history[0]["grad_norm"], rel=1e-3)
