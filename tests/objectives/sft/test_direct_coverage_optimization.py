from __future__ import annotations

import math
from fractions import Fraction
from functools import partial

import pytest
import torch
from tests.short_training import base, row, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import rng
from plumbline.objectives import direct_coverage_optimization as dco


def answer(p: float) -> Scored:
    """One row of two tokens with probability p in all."""
    half = math.log(p) / 2
    return Scored(torch.tensor([[half, half]], dtype=torch.float64))


def test_by_hand():
    # p = 1/4, N = 2: F = 2 * 1/4 * 3/4 / (1 - 9/16) = 6/7, times the token mean log 2
    x = Scored(torch.tensor([[0.5, 0.5]]).log())
    assert dco(x, samples=2).item() == pytest.approx(6 / 7 * math.log(2), rel=1e-6)
    assert dco(x, samples=2, reduce=Scored.total).item() == pytest.approx(6 / 7 * math.log(4), rel=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 16, 1000])
@pytest.mark.parametrize("p", [0.001, 0.02, 0.5, 0.97])
def test_gradient_is_that_of_log_coverage(samples, p):
    logps = torch.tensor([[math.log(p) - 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(dco(Scored(logps), samples=samples, reduce=Scored.total).sum(), logps)
    log_miss = torch.log1p(-Scored(logps).total().exp())
    (wanted,) = torch.autograd.grad(-torch.log(-torch.expm1(samples * log_miss)).sum(), logps)
    assert torch.allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("samples", [2, 7, 256])
@pytest.mark.parametrize("p", [Fraction(1, 10**9), Fraction(1, 5000), Fraction(1, 3), Fraction(999, 1000)])
def test_share_agrees_with_exact_arithmetic(samples, p):
    exact = samples * p * (1 - p) ** (samples - 1) / (1 - (1 - p) ** samples)
    assert dco(answer(float(p)), samples=samples).item() == pytest.approx(float(exact) * -math.log(p) / 2, rel=1e-6)


def test_one_sample_is_likelihood_and_the_ends_are_finite():
    x = Scored(
        torch.tensor([[-400.0, -400.0], [0.0, 0.0], [-1.0, -2.0]]), torch.tensor([[True, True]] * 2 + [[True, False]])
    )
    assert torch.allclose(dco(x), -x.mean())
    found = dco(x, samples=64)
    assert found[:2].tolist() == [400.0, 0.0] and torch.isfinite(found).all()
    with noted() as notes:
        dco(x, samples=64)
    assert notes["coverage_share"][0] == pytest.approx((1 + 0 + float(found[2])) / 3, abs=1e-6)


def test_rate_of_chains_takes_the_place_of_the_probability():
    x = Scored(torch.full((4, 2), -1.0))
    rate = torch.tensor([0.0, 0.05, 0.1, 0.9])
    f = 8 * 0.05 * 0.95**7 / (1 - 0.95**8)
    assert torch.allclose(dco(x, rate, samples=8), torch.tensor([1.0, f, 0.0, 0.0]))
    assert torch.allclose(dco(x, rate, 19, samples=8), torch.ones(4))  # the first steps are unfiltered
    assert torch.allclose(dco(x, rate, 20, samples=8), dco(x, rate, samples=8))
    kept = dco(x, rate, samples=8, threshold=0.5)
    assert kept[2] > 0 and kept[3] == 0
    assert torch.allclose(dco(x, step=0, samples=8), dco(x, samples=8))  # without rates the first steps are as the rest


def test_refusals():
    with pytest.raises(InputError, match="direct_coverage_optimization: samples must be a whole number >= 1, got 0"):
        dco(answer(0.5), samples=0)
    with pytest.raises(InputError, match="threshold must be a number >= 0 and <= 1, got 2"):
        dco(answer(0.5), samples=2, threshold=2)


def test_training_keeps_coverage_where_answers_are_random():
    lm, pick = base(), rng(0, "answers").integers(4, size=48)
    words = (" blue", " red", " green", " old")
    rows = [row(lm, f"Q: colour of box {i}?\nA:", words[w]) for i, w in enumerate(pick)]
    found = {}
    for samples in (1, 16):
        model = trained(partial(dco, samples=samples), {"x": rows[:16]}).model
        p = scored(model, rows[16:]).total().exp()
        found[samples] = float((1 - (1 - p) ** 16).mean())
    assert found[16] > found[1] + 0.1


def test_rates_and_step_reach_it_through_the_trainer():
    lm = base()
    rows = [row(lm, f"Q: colour of box {i}?\nA:", " blue", solve_rate=0.5) for i in range(8)]
    loss = partial(dco, samples=4, unfiltered_steps=1)
    first, second = (entry["loss"] for entry in trained(loss, {"x": rows}, steps=2).history if "loss" in entry)
    assert first > 0 and second == 0  # all rows are above the threshold
