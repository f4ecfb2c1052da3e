"""Self-certainty: zero for uniform, the cross-entropy identity, masks, padding columns, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode.search import _self_certainty as file
from plumbline.decode.search import self_certainty
from plumbline.kernels.seeds import generator


def inputs(dtype=torch.float64):
    g = generator(0, "test")
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 0]])
    return torch.randn(3, 4, 11, generator=g, dtype=dtype) * 2, mask


def slow(logits, mask):
    out = []
    for z, m in zip(logits.double(), mask, strict=True):
        rows = [-sum(math.log(11 * float(p)) for p in row.softmax(-1)) / 11 for row, k in zip(z, m, strict=True) if k]
        out.append(sum(rows) / len(rows))
    return torch.tensor(out, dtype=torch.float64)


def test_value_and_identity(monkeypatch):
    logits, mask = inputs()
    found = self_certainty(logits, mask)
    assert torch.allclose(found, slow(logits, mask), atol=1e-10) and found.dtype == torch.float64
    cross = torch.nn.functional.cross_entropy(logits[0], torch.full((4, 11), 1 / 11, dtype=torch.float64))
    assert float(found[0]) == pytest.approx(float(cross) - math.log(11), abs=1e-9)
    monkeypatch.setattr(file, "_BLOCK_BYTES", 100)
    assert torch.equal(self_certainty(logits, mask), found)
    low = self_certainty(logits.bfloat16(), mask)
    assert low.dtype == torch.float32 and torch.allclose(low.double(), found, atol=0.05)


def test_uniform_is_zero_and_masked_positions_do_not_count():
    assert self_certainty(torch.full((2, 3, 7), 4.0), torch.ones(2, 3)).abs().max() < 1e-6
    logits, mask = inputs()
    spoiled = torch.where(mask[..., None] == 0, torch.nan, logits)
    spoiled[0, 0] = logits[0, 0]
    assert torch.equal(self_certainty(spoiled, mask), self_certainty(logits, mask))


def test_padding_columns_are_left_out():
    logits, mask = inputs()
    padded = torch.cat([logits, torch.full((3, 4, 5), -1e4, dtype=logits.dtype)], -1)
    assert torch.allclose(self_certainty(padded, mask, vocab_size=11), self_certainty(logits, mask))
    assert (self_certainty(padded, mask) > 1000).all()


def test_refuses():
    logits, mask = inputs()
    with pytest.raises(InputError, match="output_logits=True"):
        self_certainty(logits.masked_fill(logits < -2, -torch.inf), mask)
    with pytest.raises(InputError, match="an empty row"):
        self_certainty(logits, mask * torch.tensor([[1], [1], [0]]))
    with pytest.raises(InputError, match=r"\[B, T, V\] and \[B, T\]"):
        self_certainty(logits[0], mask)
    with pytest.raises(InputError, match="vocab_size must be at most 11"):
        self_certainty(logits, mask, vocab_size=12)
