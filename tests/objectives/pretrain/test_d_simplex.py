from __future__ import annotations

import math

import pytest
import torch
from tests.objectives.pretrain.classified import Features, rows, trained
from torch import nn

from plumbline.core.errors import InputError
from plumbline.kernels.seeds import forked
from plumbline.objectives import d_simplex
from plumbline.objectives.pretrain.fixed_head import FixedHead
from plumbline.train.streams import collate


def test_by_hand():
    assert torch.allclose(d_simplex(2), torch.tensor([[1.0], [-1.0]]))
    # a triangle: 120 degrees between any two
    angle = torch.rad2deg((d_simplex(3) @ d_simplex(3).T).clamp(-1, 1).arccos())
    assert torch.allclose(angle, 120 * (1 - torch.eye(3)), atol=0.1)


@pytest.mark.parametrize("classes", [2, 5, 100, 1024])
def test_it_is_a_regular_simplex_around_0(classes):
    w = d_simplex(classes)
    assert w.shape == (classes, classes - 1) and w.dtype == torch.float32
    gram = w.double() @ w.double().T
    wanted = torch.full_like(gram, -1 / (classes - 1)).fill_diagonal_(1.0)
    assert float((gram - wanted).abs().max()) < 1e-6
    assert float(w.double().sum(0).abs().max()) < 1e-5
    assert torch.equal(w, d_simplex(classes))


def test_one_class_is_refused_by_name():
    with pytest.raises(InputError, match="d_simplex: classes must be at least 2, got 1"):
        d_simplex(1)
    assert math.isclose(float(d_simplex(4, dtype=torch.float64).norm()), 2.0)


def test_short_training_under_a_fixed_head_makes_two_models_agree():
    batch = collate(rows(), 0)

    def agreement(head):
        def loss(features, batch, logits):
            return nn.functional.cross_entropy(logits, batch["kind"], reduction="none")

        with forked(0, "heads"):
            old, new = (trained(Features("zoo:base", 7, seed), head(), loss)(batch).detach() for seed in (0, 1))
        return float(torch.cosine_similarity(old, new).mean())

    fixed, free = agreement(lambda: FixedHead(d_simplex(8))), agreement(lambda: nn.Linear(7, 8, bias=False))
    assert fixed > 0.6 and fixed > free + 0.3
