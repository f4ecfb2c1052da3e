from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from plumbline.core.errors import InputError
from plumbline.kernels.linear_extras import linear_moments, linear_sample, support_logps
from plumbline.kernels.seeds import generator


def law(n=12, d=5, v=23, seed=0):
    g = generator(seed, "extras")
    return tuple(
        torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_() for shape in ((n, d), (v, d), (v,))
    )


@pytest.mark.parametrize("blocks", [(1, 1), (7, 5), (64, 64)])
def test_samples_follow_the_distribution(blocks):
    hidden, weight, bias = (x.detach() for x in law(n=3))
    how = dict(bias=bias, scale=1.3, softcap=4.0, temperature=0.7)
    drawn = linear_sample(hidden, weight, 20_000, generator=generator(1, "draw"), token_block=blocks[0],
                          vocab_block=blocks[1], **how)  # fmt: skip
    z = 4.0 * torch.tanh(1.3 * (hidden @ weight.T + bias) / 4.0) / 0.7
    for row, p in zip(drawn, z.softmax(-1), strict=True):
        seen = torch.bincount(row, minlength=23).double()
        rare = p * 20_000 < 5
        counts = torch.cat([seen[~rare], seen[rare].sum()[None]]) if rare.any() else seen
        wanted = torch.cat([p[~rare], p[rare].sum()[None]]) if rare.any() else p
        keep = wanted * 20_000 >= 1
        assert chisquare(counts[keep], (wanted[keep] / wanted[keep].sum() * counts[keep].sum())).pvalue > 1e-3
    again = linear_sample(hidden, weight, 20_000, generator=generator(1, "draw"), token_block=blocks[0],
                          vocab_block=blocks[1], **how)  # fmt: skip
    assert torch.equal(drawn, again)


def test_an_impossible_id_is_never_drawn():
    hidden, weight = torch.zeros(4, 3), torch.zeros(9, 3)
    bias = torch.zeros(9)
    bias[[0, 4, 8]] = -torch.inf
    drawn = linear_sample(hidden, weight, 3000, generator=generator(0, "x"), bias=bias, vocab_block=4)
    assert not torch.isin(drawn, torch.tensor([0, 4, 8])).any() and drawn.min() >= 0 and drawn.max() < 9


def test_support_is_log_softmax_over_the_kept_set_with_gradients():
    hidden, weight, bias = law()
    labels = torch.arange(12) % 23
    sets = [[int(y), 3, 17] if n % 3 else [int(y)] for n, y in enumerate(labels)]
    sets = [sorted(set(s)) for s in sets]
    ids = torch.tensor([i for s in sets for i in s])
    offsets = torch.tensor([0, *torch.tensor([len(s) for s in sets]).cumsum(0).tolist()])
    ours = support_logps(hidden, weight, labels, ids, offsets, bias=bias, scale=0.8, softcap=3.0, temperature=1.4)
    z = 3.0 * torch.tanh(0.8 * (hidden @ weight.T + bias) / 3.0) / 1.4
    slow = torch.stack([z[n, y] - z[n, s].logsumexp(0) for n, (y, s) in enumerate(zip(labels, sets, strict=True))])
    assert torch.allclose(ours, slow, atol=1e-12)
    up = torch.randn(12, dtype=torch.float64, generator=generator(2, "up"))
    for got, wanted in zip(*(torch.autograd.grad((x * up).sum(), [hidden, weight, bias]) for x in (ours, slow))):
        assert torch.allclose(got, wanted, atol=1e-12)


def test_a_label_missing_from_its_set_counts_as_a_member():
    hidden, weight, _ = (x.detach() for x in law(n=2))
    found = support_logps(hidden, weight, torch.tensor([4, 5]), torch.tensor([1, 2, 5]), torch.tensor([0, 2, 3]))
    z = hidden @ weight.T
    assert torch.allclose(found[0], z[0, 4] - z[0, [1, 2, 4]].logsumexp(0)) and abs(found[1]) < 1e-12
    with pytest.raises(InputError, match="support_logps: offsets"):
        support_logps(hidden, weight, torch.tensor([4, 5]), torch.tensor([1, 2, 5]), torch.tensor([0, 2]))


def test_moments_are_those_of_all_scores():
    hidden, weight, bias = law()
    labels = torch.arange(12)
    found = linear_moments(hidden, weight, labels, bias=bias)
    o = hidden @ weight.T + bias
    slow = (o.gather(1, labels[:, None])[:, 0], o.mean(-1), o.square().mean(-1))
    assert found.vocab == 23
    for ours, wanted in zip(found[:3], slow, strict=True):
        assert torch.allclose(ours, wanted, atol=1e-12)
    grads = [torch.autograd.grad(sum(x.sin().sum() for x in m), [hidden, weight, bias]) for m in (found[:3], slow)]
    for got, wanted in zip(*grads, strict=True):
        assert torch.allclose(got, wanted, atol=1e-11)
