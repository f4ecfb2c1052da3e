from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.short_training import base, row, scored, trained
from torch import nn

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny
from plumbline.objectives import nll, z_loss


def of(scores, ids):
    return Scored.from_logits(scores[:, None], ids[:, None], shift=False)


def test_by_hand():
    # 3, 1, 1, -1: mean 1, variance 2, so the label's score of 3 is sqrt 2 deviations up
    x = of(torch.tensor([[3.0, 1.0, 1.0, -1.0]], dtype=torch.float64), torch.tensor([0]))
    wanted = math.log1p(math.exp(2 * (1.7 - math.sqrt(2)))) / 2
    assert z_loss(x, threshold=1.7, sharpness=2.0).item() == pytest.approx(wanted, abs=1e-6)


def test_gradient_is_the_papers():
    g = generator(0, "test_z_loss")
    scores = torch.randn(5, 9, generator=g, dtype=torch.float64).requires_grad_()
    ids = torch.randint(9, (5,), generator=g)
    (found,) = torch.autograd.grad(z_loss(of(scores, ids), threshold=1.3, sharpness=0.7).sum(), scores)
    o = scores.detach()
    for n, label in enumerate(ids.tolist()):
        std = o[n].var(unbiased=False).sqrt()
        z = (o[n] - o[n].mean()) / std
        outer = -1 / (1 + math.exp(-0.7 * (1.3 - float(z[label]))))
        wanted = [outer / std * ((k == label) - 1 / 9 - z[label] * z[k] / 9) for k in range(9)]
        assert torch.allclose(found[n], torch.stack(wanted), atol=1e-5)


def test_straight_from_hidden_states_it_is_the_same():
    model = tiny("llama").double()
    ids = torch.randint(101, (2, 8), generator=generator(0, "ids"))
    found = z_loss(Scored.of(model, ids), threshold=3.0).sum()
    dense = z_loss(Scored.from_logits(model(ids).logits, ids), threshold=3.0).sum()
    assert found.item() == pytest.approx(dense.item(), abs=1e-6)
    weight = model.get_output_embeddings().weight
    ours, theirs = (torch.autograd.grad(loss, weight)[0] for loss in (found, dense))
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_equal_scores_and_masked_positions_are_finite():
    scores = torch.zeros(1, 2, 5, requires_grad=True)
    x = Scored.from_logits(scores, torch.tensor([[1, 2]]), torch.tensor([[1, 0]]), shift=False)
    loss = z_loss(x, threshold=1.0)
    assert loss[0, 0].item() == pytest.approx(math.log1p(math.e), abs=1e-6) and loss[0, 1] == 0
    (slope,) = torch.autograd.grad(loss.sum(), scores)
    assert torch.isfinite(slope).all() and (slope[0, 1] == 0).all()


def test_no_score_reaches_beyond_the_root_of_v_less_one():
    spike = nn.functional.one_hot(torch.tensor([2]), 17).double() * 100
    at = z_loss(of(spike, torch.tensor([2])), threshold=4.0, sharpness=50.0)  # sqrt(17 - 1)
    assert at.item() == pytest.approx(math.log(2) / 50, abs=1e-6)


def test_log_probabilities_alone_are_refused():
    with pytest.raises(InputError, match="Scored: moments must be available, got log-probabilities only"):
        z_loss(Scored(torch.zeros(1, 1)), threshold=1.0)
    with pytest.raises(InputError, match="z_loss: sharpness must be a number > 0, got 0"):
        z_loss(Scored(torch.zeros(1, 1)), threshold=1.0, sharpness=0)


def test_short_training_lifts_the_standardised_score_more_than_likelihood_does():
    lm = base()
    rows = [row(lm, f"{name} lives in", f" the house of {other}.") for name, other in zip("ABCDEFGH", "HGFEDCBA")]

    @torch.no_grad()
    def standing(model):
        return float(z_loss(scored(model, rows), threshold=0.0, sharpness=1e-3).mean())  # falls with z, linearly

    before = standing(lm)
    ours, theirs = (standing(trained(loss, {"x": rows}).model) for loss in (partial(z_loss, threshold=16.0), nll))
    assert ours < before and ours < theirs
