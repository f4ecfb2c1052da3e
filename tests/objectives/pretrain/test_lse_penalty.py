from __future__ import annotations

import math

import pytest
import torch
from tests.short_training import base, row, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny
from plumbline.objectives import lse_penalty, nll


def test_by_hand():
    # scores log 2, log 3, log 4: their logsumexp is log 9
    scores = torch.tensor([[[2.0, 3.0, 4.0], [9.0, 9.0, 9.0]]]).log()
    x = Scored.from_logits(scores, torch.tensor([[1, 1]]), torch.tensor([[1, 0]]), shift=False)
    loss = lse_penalty(x, coefficient=0.5)
    assert loss[0, 0].item() == pytest.approx(0.5 * math.log(9) ** 2, rel=1e-6) and loss[0, 1] == 0


def test_it_is_the_models_logsumexp_with_its_gradient():
    model = tiny("llama").double()
    ids = torch.randint(101, (2, 8), generator=generator(0, "ids"))
    found = lse_penalty(Scored.of(model, ids), coefficient=1.0)
    dense = model(ids).logits[:, :-1].logsumexp(-1).square()
    assert torch.allclose(found, dense, atol=1e-9)
    weight = model.get_output_embeddings().weight
    ours, theirs = (torch.autograd.grad(loss.sum(), weight)[0] for loss in (found, dense))
    assert torch.allclose(ours, theirs, atol=1e-9)


def test_coefficient_zero_is_nothing_and_a_negative_one_is_refused():
    x = Scored.from_logits(torch.ones(1, 1, 3), torch.zeros(1, 1, dtype=torch.long), shift=False)
    assert lse_penalty(x, coefficient=0.0).item() == 0
    with pytest.raises(InputError, match="lse_penalty: coefficient must be a number >= 0, got -1"):
        lse_penalty(x, coefficient=-1)


def test_short_training_lowers_the_logsumexp_more_than_likelihood_does():
    lm = base()
    rows = [row(lm, f"{name} lives in", f" the house of {other}.") for name, other in zip("ABCDEFGH", "HGFEDCBA")]

    @torch.no_grad()
    def size(model):
        return float(lse_penalty(scored(model, rows), coefficient=1.0).mean())

    before = size(lm)
    ours, theirs = (
        size(trained(loss, {"x": rows}).model)
        for loss in ([nll, (0.05, lambda s: s.mean(lse_penalty(s.x, coefficient=1.0)))], nll)
    )
    assert ours < before and ours < theirs
