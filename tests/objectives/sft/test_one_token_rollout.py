from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.short_training import base, row, scored, trained

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import generator, rng
from plumbline.objectives import nll, one_token_rollout

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0], dtype=torch.float64)


class Drawn(Scored):
    """A Scored whose draws are given."""

    def sample(self, k, *, generator=None, temperature=1.0):
        self.asked = (k, temperature)
        return self.draws


def drawn(logits, ids, draws, mask=None):
    x = Drawn.from_logits(logits, ids, mask, shift=False)
    x.draws = draws
    return x


def test_by_hand():
    # p = (1/2, 1/4, 1/4), label 0; draws 0, 0, 1, 2: -(1/4)(2 log 1/2 - 0.1 * 2 log 1/4) = 0.4 log 2
    logits = torch.tensor([[[0.5, 0.25, 0.25]]]).log()
    x = drawn(logits, torch.tensor([[0]]), torch.tensor([[[0, 0, 1, 2]]]))
    with noted() as notes:
        found = one_token_rollout(x, samples=4)
    assert found.item() == pytest.approx(0.4 * math.log(2), abs=1e-6) and x.asked == (4, 1.3)
    assert notes == {"hit_rate": [0.5], "tokens_never_drawn": [0.0]}
    # the expectation: 1.1 * 1/2 * log 2
    assert one_token_rollout(x, samples=None).item() == pytest.approx(0.55 * math.log(2), abs=1e-6)


def gradient(label, draws):
    z = LOGITS.clone().requires_grad_()
    x = drawn(z.expand(1, 1, 7), torch.tensor([[label]]), torch.tensor([[draws]]))
    return torch.autograd.grad(one_token_rollout(x, samples=len(draws), beta=-0.3).sum(), z)[0]


@pytest.mark.parametrize("label", range(7))
def test_the_expectation_is_exact_by_enumeration(label):
    p = LOGITS.softmax(-1)
    mean = sum(p[a] * p[b] * gradient(label, [a, b]) for a in range(7) for b in range(7))
    z = LOGITS.clone().requires_grad_()
    x = Scored.from_logits(z.expand(1, 1, 7), torch.tensor([[label]]), shift=False)
    (exact,) = torch.autograd.grad(one_token_rollout(x, samples=None, beta=-0.3).sum(), z)
    assert torch.allclose(mean, exact, atol=1e-12)
    weighted = -1.3 * p[label] * (torch.nn.functional.one_hot(torch.tensor(label), 7) - p)
    assert torch.allclose(exact, weighted, atol=1e-12)


def test_draws_and_masked_positions():
    mask = torch.tensor([[True, False], [True, True]])
    z = torch.randn(2, 2, 7, generator=generator(0, "t"), requires_grad=True)
    x = Scored.from_logits(z, torch.zeros(2, 2, dtype=torch.long), mask, shift=False)
    with noted() as notes:  # a masked position, whose draws are 0 as its label is, is no hit
        one_token_rollout(drawn(z, x.labels, torch.zeros(2, 2, 3, dtype=torch.long), mask), samples=3)
        one_token_rollout(drawn(z, x.labels, torch.ones(2, 2, 3, dtype=torch.long), mask), samples=3)
    assert notes == {"hit_rate": [1.0, 0.0], "tokens_never_drawn": [0.0, 1.0]}
    first, again, other = (one_token_rollout(x, samples=8, generator=generator(s, "draw")) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first[0, 1] == 0 and not torch.autograd.grad(first.sum(), z)[0][0, 1].any()


def test_a_label_that_is_never_drawn_is_not_learned():
    z = torch.tensor([[[-60.0, 0.0, 0.0]]], requires_grad=True)
    x = Scored.from_logits(z, torch.tensor([[0]]), shift=False)
    for samples in (64, None):
        (slope,) = torch.autograd.grad(one_token_rollout(x, samples=samples, beta=0.0).sum(), z, retain_graph=True)
        assert slope.abs().max() < 1e-20


def test_refusals():
    x = Scored(torch.zeros(1, 1))
    with pytest.raises(InputError, match="temperature must be 1 or None where samples=None, got 1.3"):
        one_token_rollout(x, samples=None, temperature=1.3)
    with pytest.raises(InputError, match="one_token_rollout: beta must be a number < 1, got 1"):
        one_token_rollout(x, beta=1)
    with pytest.raises(InputError, match="samples must be a whole number >= 1 or None, got 0"):
        one_token_rollout(x, samples=0)
    with pytest.raises(InputError, match="log-probabilities only"):
        one_token_rollout(x)


def test_training_on_wrong_labels_keeps_what_the_model_knew():
    lm, r = base(), rng(0, "wrong labels")
    known = [row(lm, f"Q: colour of box {i}?\nA:", " blue" if i % 2 else " green and red") for i in range(24)]
    wrong = [dict(one, labels=[-100 if v == -100 else int(r.integers(300)) for v in one["labels"]]) for one in known]
    start = trained(nll, {"x": known[:16]}, lm=lm)
    losses = {"draws": partial(one_token_rollout, samples=16), "no draws": partial(one_token_rollout, samples=None)}
    lost = {}
    for name, loss in (losses | {"nll": nll}).items():
        again = base()
        again.model.load_state_dict(start.model.state_dict())
        model = trained(loss, {"x": wrong[:8] + known[8:16]}, lm=again).model
        lost[name] = float(-scored(model, known[16:]).mean().mean())
    assert lost["draws"] < 0.5 * lost["nll"] and lost["no draws"] < 0.5 * lost["nll"], lost
