from __future__ import annotations

import pytest
import torch
from torch import nn

from plumbline.kernels.few_rows import FEW, MOST, WIDE, few_rows
from plumbline.lab.tiny import tiny


@pytest.mark.parametrize("rows", [1, 2, 3, FEW, FEW + 1, MOST, MOST + 1])
@pytest.mark.parametrize("out", [7, WIDE])
@pytest.mark.parametrize("bias", [True, False])
def test_same_products_up_to_rounding(rows: int, out: int, bias: bool, monkeypatch) -> None:
    monkeypatch.setattr("plumbline.kernels.few_rows.BIG", 1)
    layer, x = nn.Linear(12, out, bias=bias), torch.randn(1, rows, 12)
    with torch.no_grad():
        want = layer(x)
        with few_rows(layer):
            got = layer(x)
    assert got.shape == want.shape and torch.allclose(got, want, atol=1e-6)


def test_models_are_left_as_they_were_even_after_an_error(monkeypatch) -> None:
    monkeypatch.setattr("plumbline.kernels.few_rows.BIG", 1)
    model, ids = tiny("llama"), torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        want = model(ids).logits
    with pytest.raises(ZeroDivisionError), few_rows(model):
        _ = 1 / 0
    assert all("forward" not in m.__dict__ for m in model.modules())
    with few_rows(model), few_rows(model), torch.no_grad():
        assert torch.allclose(model(ids).logits, want, atol=1e-5)
    assert all("forward" not in m.__dict__ for m in model.modules())


def test_gradients_and_other_dtypes_go_the_ordinary_way(monkeypatch) -> None:
    monkeypatch.setattr("plumbline.kernels.few_rows.BIG", 1)
    layer = nn.Linear(4, 3)
    with few_rows(layer):
        layer(torch.randn(2, 4)).sum().backward()
    assert layer.weight.grad is not None
    half = nn.Linear(4, 3).bfloat16()
    with few_rows(half):
        assert "forward" not in half.__dict__
