from __future__ import annotations

import math

import pytest
import torch
from tests.short_training import base, row, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.objectives import nll, npo
from plumbline.worlds import people


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


def test_twenty_steps_forget_slower_than_ascent_and_keep_more():
    """Facts that zoo:base knows by heart: 16 to forget, 16 that are trained on beside them, 16 that nobody mentions."""
    lm = base()
    known = [fact for fact in people.facts() if fact.exposures >= 100]
    forget, kept, others = (
        [
            row(lm, prompt, f" {fact.object}.")
            for fact in known[i : i + 16]
            for prompt in people.RELATIONS[fact.relation].prompts(fact.subject)[:2]
        ]
        for i in (0, 16, 32)
    )
    losses = {
        "retain": lambda s: s.mean(nll(s.kept)),
        "npo": lambda s: s.mean(npo(s.forget, s.forget_ref)) + s.mean(nll(s.kept)),
        "ascent": lambda s: s.mean(s.forget.total()) + s.mean(nll(s.kept)),
    }
    found = {}
    for name, loss in losses.items():
        model = trained(loss, {"forget": forget, "kept": kept}).model
        found[name] = [float(scored(model, rows).total().mean()) for rows in (forget, kept, others)]
    assert all(scored(lm, rows).total().mean() > -0.1 for rows in (forget, kept, others))  # nats an answer, before
    (still, *_), npos, ascents = found["retain"], found["npo"], found["ascent"]
    assert still > -1 and ascents[0] < 1.3 * npos[0] < -20  # both forget, ascent without an end
    assert npos[1] > -3 > ascents[1]
    assert npos[2] / npos[0] < 0.8 * ascents[2] / ascents[0]  # others lose less for each nat that is forgotten
