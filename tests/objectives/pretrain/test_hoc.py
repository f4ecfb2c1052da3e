from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.pretrain.classified import Features, retrieval, rows, trained
from torch import nn

from plumbline.core.errors import InputError
from plumbline.kernels.seeds import forked, generator
from plumbline.objectives import hoc
from plumbline.train.streams import collate


def drawn(n=7, d=4):
    return torch.randn(2, n, d, generator=generator(0, "test_hoc"), dtype=torch.float64).unbind()


def test_by_hand():
    # anchors on the axes; the first new feature lies at 60 degrees to its anchor, the others on theirs
    old = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, -1.0]])
    new = torch.tensor([[0.5, math.sqrt(0.75)], [0.0, 1.0], [0.0, -5.0]])
    found = hoc(new, old, torch.tensor([0, 1, 1]), sharpness=2.0)
    wanted = [-1 + math.log(2), -2 + 2 * math.sqrt(0.75), -2 - 2 * math.sqrt(0.75)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


def test_against_a_slow_loop():
    new, old = drawn()
    classes = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    f, g = (x / x.norm(dim=-1, keepdim=True) for x in (new, old))
    for n, found in enumerate(hoc(new, old, classes).tolist()):
        negatives = [math.exp(10 * float(g[n] @ f[m])) for m in range(7) if classes[m] != classes[n]]
        assert found == pytest.approx(-10 * float(g[n] @ f[n]) + math.log(sum(negatives)), abs=1e-6)


def official(new, old, classes, sharpness=10.0):
    """The published code's sum: same-class similarities are multiplied by 0, and exp(0) stays in it."""
    similar = sharpness * nn.functional.normalize(old, dim=-1) @ nn.functional.normalize(new, dim=-1).T
    zeroed = similar * (classes[:, None] != classes)
    return zeroed.logsumexp(-1) - similar.diagonal()


def test_the_published_zeroing_adds_one_to_the_sum_for_every_row_of_the_class():
    new, old = drawn()
    classes = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    ours, theirs = hoc(new, old, classes), official(new, old, classes)
    alike = (classes[:, None] == classes).sum(-1)
    positive = 10 * torch.cosine_similarity(old, new)
    assert torch.allclose((theirs + positive).exp(), (ours + positive).exp() + alike)
    assert (theirs > ours).all()


def test_gradient_reaches_the_new_features_alone():
    new, old = drawn()
    new.requires_grad_(), old.requires_grad_()
    loss = hoc(new, old, torch.arange(7) % 3).mean()
    found, none = torch.autograd.grad(loss, (new, old), allow_unused=True)
    assert none is None and torch.isfinite(found).all()
    moved = hoc(new - 0.01 * found, old, torch.arange(7) % 3).mean()
    assert moved < loss


def test_one_class_has_nothing_to_contrast_with():
    new, old = drawn()
    new.requires_grad_()
    loss = hoc(new, old, torch.zeros(7).long())
    assert torch.equal(loss, torch.zeros(7, dtype=torch.float64))
    assert (torch.autograd.grad(loss.sum(), new)[0] == 0).all()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"hoc: features, features_old, classes must be \[B,D\], \[B,D\] and \[B\]"):
        hoc(torch.ones(2, 3), torch.ones(2, 4), torch.zeros(2))
    with pytest.raises(InputError, match="hoc: sharpness must be a number > 0, got 0"):
        hoc(torch.ones(2, 3), torch.ones(2, 3), torch.zeros(2), sharpness=0)


def test_short_training_keeps_the_new_model_compatible_where_cross_entropy_alone_does_not():
    old, batch = Features("zoo:base", 7).eval(), collate(rows(), 0)

    def across(share):
        def loss(features, batch, logits):
            with torch.no_grad():
                anchors = old(batch)
            entropy = nn.functional.cross_entropy(logits, batch["kind"], reduction="none")
            return share * entropy + (1 - share) * hoc(features, anchors, batch["kind"])

        with forked(0, "head"):
            head = nn.Linear(7, 4)
        return retrieval(trained(Features("zoo:base", 7, seed=1), head, loss), old, batch)

    with_it, without = across(0.1), across(1.0)
    assert with_it > max(0.8, without + 0.2)
