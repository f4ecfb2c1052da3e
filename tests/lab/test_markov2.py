from __future__ import annotations

import torch

from plumbline.lab.markov2 import SYMBOLS, Source, network, train


def test_the_source_is_a_distribution_and_draws_from_it():
    source = Source(0)
    assert torch.allclose(source.p.sum(-1), torch.ones(SYMBOLS, SYMBOLS))
    context, y = source.draw(200_000)
    seen = torch.zeros(SYMBOLS, SYMBOLS, SYMBOLS)
    seen.index_put_((context[:, 0], context[:, 1], y), torch.ones(len(y)), accumulate=True)
    assert float((seen / seen.sum(-1, keepdim=True) - source.p).abs().mean()) < 0.01
    assert torch.equal(source.draw(10)[0], source.draw(10)[0])


def test_cross_entropy_of_a_uniform_network_and_after_training():
    source = Source(0)
    model = network(16, 0)
    for p in model[-1].parameters():
        torch.nn.init.zeros_(p)
    assert abs(source.nll(model) - torch.tensor(float(SYMBOLS)).log().item()) < 1e-5
    assert source.nll(train(source, model, lambda x, teacher, progress: -x.logps, steps=60)) < 3.39
