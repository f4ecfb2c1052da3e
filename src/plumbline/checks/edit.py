"""Properties of every edit of activations: shape, dtype and device kept, pure, batch-independent."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.checks.common import expect, same, unchanged
from plumbline.core.declare import Card
from plumbline.kernels.seeds import generator

B, T, D = 3, 5, 16


def _inputs(card: Card) -> tuple[list[Tensor], Tensor]:
    """A vector [D] for each role of the factory, and activations [B,T,D]."""
    g = generator(0, "checks", card.name)
    return [torch.randn(D, generator=g) for _ in card.roles], torch.randn(B, T, D, generator=g)


def keeps_form(card: Card) -> None:
    """[B,T,D] in and out, in the dtype that came."""
    vectors, x = _inputs(card)
    for dtype in (torch.float32, torch.bfloat16):
        y = card.fn(*vectors)(x.to(dtype))
        expect(
            y.shape == x.shape and y.dtype == dtype, card, f"must keep [B,T,D] {dtype}, got {tuple(y.shape)} {y.dtype}"
        )


def pure(card: Card) -> None:
    """The input is left as it was; twice gives the same."""
    vectors, x = _inputs(card)
    rule = card.fn(*vectors)
    same(card, unchanged(card, lambda: rule(x), x), card.fn(*vectors)(x), "two fresh edits", 0.0)


def batch_independent(card: Card) -> None:
    """A row alone gets what it gets in a batch."""
    vectors, x = _inputs(card)
    whole = card.fn(*vectors)(x)
    for i in range(B):
        same(card, card.fn(*vectors)(x[i : i + 1]), whole[i : i + 1], f"row {i} alone")


CHECKS = (keeps_form, pure, batch_independent)
