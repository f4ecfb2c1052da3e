from __future__ import annotations

import torch
from torch import nn

from plumbline.kernels.seeds import generator
from plumbline.lab.features import encoder, free_head, images, linear_head, retrieval, top


def test_digits_are_split_once_and_for_all():
    data = images()
    assert data.x.shape == (1200, 64) and data.test_x.shape == (597, 64)
    assert torch.equal(images().x, data.x) and float(data.x.min()) >= 0 and float(data.x.max()) == 1


def test_a_linear_head_learns_and_is_measured_on_the_test_digits():
    head = linear_head(lambda x: -x.logps)
    assert top(head, 1) > 0.93 and top(head, 10) == 1.0 and top(head, 3) >= top(head, 1)


def test_an_encoder_finds_its_own_digits_and_a_random_one_does_not_find_anothers():
    mine = encoder(free_head(9), 9, rows=300, steps=60)
    assert retrieval(mine, mine) > 0.85
    shuffled = nn.Sequential(mine, nn.Linear(9, 9, bias=False))
    nn.init.orthogonal_(shuffled[1].weight, generator=generator(0, "turn"))
    assert retrieval(shuffled.requires_grad_(False), mine) < 0.6


def test_the_loss_beside_takes_its_share():
    def zero(features, x, y):
        return features.square().sum(-1)

    small = encoder(free_head(9), 9, rows=100, steps=60, beside=zero, share=0.0)
    assert float(small(images().x).norm(dim=-1).mean()) < 0.3
