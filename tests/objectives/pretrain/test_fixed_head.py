from __future__ import annotations

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.objectives import d_simplex
from plumbline.objectives.pretrain.fixed_head import FixedHead


def test_by_hand_and_never_trained():
    head = FixedHead(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), scale=3.0)
    features = torch.tensor([[[4.0, 5.0]]], requires_grad=True)
    assert head(features).tolist() == [[[12.0, 30.0]]]
    assert list(head.parameters()) == [] and "prototypes" in head.state_dict()
    head(features).sum().backward()
    assert features.grad.tolist() == [[[3.0, 6.0]]]
    assert head.bfloat16()(features.bfloat16()).dtype == torch.float32


def test_its_prototypes_are_its_own():
    prototypes = d_simplex(3)
    head = FixedHead(prototypes)
    prototypes.zero_()
    assert head.prototypes.norm() > 1


def test_refusals():
    with pytest.raises(InputError, match=r"FixedHead: prototypes must be \[K,D\], got \(3,\)"):
        FixedHead(torch.ones(3))
    with pytest.raises(InputError, match=r"FixedHead: features must be of width 4, got \(2, 5\)"):
        FixedHead(d_simplex(5))(torch.ones(2, 5))
