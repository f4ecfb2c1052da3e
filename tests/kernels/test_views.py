"""Both classes answer alike: from a head's input, blockwise, and from logits at hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from plumbline.kernels.linear_kl import linear_js, linear_kl, linear_reverse_kl
from plumbline.kernels.seeds import generator
from plumbline.kernels.views import HeadView, LogitView

N, D, V = 9, 6, 31


def both(seed=0, temperature=0.7, softcap=5.0):
    g = generator(seed, "views")
    hidden = torch.randn(N, D, generator=g, dtype=torch.float64).requires_grad_()
    weight = torch.randn(V, D, generator=g, dtype=torch.float64).requires_grad_()
    labels = torch.randint(V, (N,), generator=g)

    def raw(h):
        z = 1.2 * (h @ weight.T)
        return z if softcap is None else softcap * torch.tanh(z / softcap)

    class Head(SimpleNamespace):
        def __call__(self, h):
            return raw(h)

    head = Head(weight=weight, bias=None, scale=1.2, softcap=softcap)
    return HeadView(hidden, head, labels, temperature), LogitView(raw(hidden), labels, temperature), (hidden, weight)


ASKED = {
    "logps": lambda v: v.logps(),
    "entropy": lambda v: v.logps_and_entropy()[1],
    "logps_of": lambda v: v.logps_of(torch.arange(N * 3).view(N, 3) % V),
    "logps_in": lambda v: v.logps_in((torch.arange(N * 4) % V, torch.arange(N + 1) * 4)),
    "logits": lambda v: v.logits(),
}


@pytest.mark.parametrize("name", ASKED)
def test_the_same_numbers_and_gradients(name):
    head, full, leaves = both()
    ours, theirs = ASKED[name](head), ASKED[name](full)
    assert torch.allclose(ours, theirs, atol=1e-10)
    grads = [torch.autograd.grad(x.sin().sum(), leaves, retain_graph=True) for x in (ours, theirs)]
    for got, wanted in zip(*grads, strict=True):
        assert torch.allclose(got, wanted, atol=1e-10)


@pytest.mark.parametrize("which", [linear_kl, linear_reverse_kl, linear_js])
@pytest.mark.parametrize("tau", [None, 0.25])
def test_divergences_agree_in_every_mixture_of_views(which, tau):
    head, full, leaves = both()
    other_head, other_full, theirs = both(seed=1)
    p = (other_full.raw / (0.7 if tau is None else tau)).softmax(-1).detach()
    q = full.logits().softmax(-1)
    m = (p + q) / 2
    slow = {
        linear_kl: (p * (p.log() - q.log())).sum(-1), linear_reverse_kl: (q * (q.log() - p.log())).sum(-1),
        linear_js: ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2,
    }[which]  # fmt: skip
    wanted = torch.autograd.grad(slow.sum(), leaves, retain_graph=True)
    for mine in (head, full):
        for other in (other_head, other_full):
            found = mine.diverge(other, which, tau)
            assert torch.allclose(found, slow, atol=1e-8)
            grads = torch.autograd.grad(found.sum(), [*leaves, *theirs], retain_graph=True, allow_unused=True)
            assert all(torch.allclose(a, b, atol=1e-8) for a, b in zip(grads, wanted, strict=False))
            assert all(x is None or not x.any() for x in grads[2:])  # the other is a constant


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_moments_agree_at_any_temperature_with_a_soft_cap_and_without(softcap):
    head, full, leaves = both(softcap=softcap)
    z = full.logits()
    slow = (z.gather(1, full.labels[:, None])[:, 0], z.mean(-1), z.square().mean(-1))
    for ours, theirs, wanted in zip(head.moments(), full.moments(), slow, strict=False):
        assert torch.allclose(ours, wanted, atol=1e-10) and torch.allclose(theirs, wanted, atol=1e-10)
        grads = [torch.autograd.grad(x.sin().sum(), leaves, retain_graph=True) for x in (ours, wanted)]
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*grads, strict=True))


def test_samples_come_from_the_temperature_asked_for():
    head, full, _ = both(softcap=None)
    for view in (head, full):
        drawn = view.sample(4000, generator(0, "s"), 0.05)
        assert (drawn == full.raw.argmax(-1)[:, None]).double().mean() > 0.9
