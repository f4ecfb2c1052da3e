from __future__ import annotations

import torch

from plumbline.lab.digits import accuracy, coverage, digits, network, scored, train_on


def test_noise_changes_labels_alone():
    clean, noisy = digits(400, seed=0), digits(400, seed=0, noise=0.5)
    assert torch.equal(clean.x, noisy.x) and torch.equal(clean.test_y, noisy.test_y)
    changed = (clean.y != noisy.y).float().mean()
    assert 0.4 < changed < 0.5  # a tenth of the random classes is right
    assert len(clean.x) + len(clean.test_x) == 1797 and not torch.equal(clean.y, digits(400, seed=1).y)


def test_a_network_learns_digits_and_coverage_is_of_its_probabilities():
    data, model = digits(300, seed=0), network(seed=0)
    before = torch.cat([p.flatten() for p in network(seed=0).parameters()])
    assert torch.equal(before, torch.cat([p.flatten() for p in model.parameters()]))
    train_on(model, data.x, data.y, lambda x: -x.logps, steps=100)
    assert accuracy(model, data.test_x, data.test_y) > 0.85
    p = scored(model, data.test_x, data.test_y).total().detach().exp()
    assert coverage(model, data.test_x, data.test_y, 1) == float(p.mean())
    assert coverage(model, data.test_x, data.test_y, 8) > float(p.mean())
