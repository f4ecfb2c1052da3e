from __future__ import annotations

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.core.scored import Scored
from plumbline.kernels.packing import packed_states
from plumbline.lab.tiny import ARCHITECTURES, tiny


def batch(side):
    ids = torch.randint(3, 101, (4, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for row, n in enumerate((20, 13, 1, 7)):
        mask[row, n:] = 0
    return (ids, mask) if side == "right" else (ids.flip(1), mask.flip(1))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_is_padded_with_gradients(architecture, side):
    model = tiny(architecture)
    ids, mask = batch(side)
    apart, together = Scored.of(model, ids, mask), Scored.of(model, ids, mask, packed=True)
    assert torch.equal(apart.mask, together.mask)
    assert torch.allclose(apart.logps, together.logps, atol=1e-4)
    weights = [p for p in model.parameters() if p.requires_grad]
    grads = [torch.autograd.grad(x.logps.sum(), weights, allow_unused=True) for x in (apart, together)]
    for a, b in zip(*grads, strict=True):
        if a is not None:
            assert torch.allclose(a, b, atol=1e-3 * max(1.0, float(a.abs().max())))


def test_a_model_whose_rows_would_see_each_other_is_refused(monkeypatch):
    model = tiny("llama")
    forward = type(model).forward

    def blind(self, *args, position_ids=None, **kwargs):
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(model, "forward", blind.__get__(model))
    with pytest.raises(InputError, match="packed: model"):
        packed_states(model, *batch("right"))
