"""Properties of every weight rule: shape and dtype kept, pure, a fixed point where nothing was tuned."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.checks.common import expect, same, unchanged
from plumbline.core.declare import Card
from plumbline.kernels.seeds import generator


def _inputs(card: Card) -> tuple[Tensor, list[Tensor]]:
    g = generator(0, "checks", card.name)
    base = torch.randn(8, 6, generator=g)
    return base, [base + 0.1 * torch.randn(8, 6, generator=g) for _ in range(2)]


def keeps_form(card: Card) -> None:
    """[S] in and out, in the base's dtype; inputs unchanged; the same twice."""
    base, tuned = _inputs(card)
    out = unchanged(card, lambda: card.fn(base, tuned), base, *tuned)
    expect(out.shape == base.shape and out.dtype == base.dtype, card, f"got {tuple(out.shape)} {out.dtype}")
    same(card, card.fn(base, tuned), out, "called twice", 0.0)
    low = card.fn(base.bfloat16(), [t.bfloat16() for t in tuned])
    expect(low.dtype == torch.bfloat16, card, f"bf16 weights must stay bf16, got {low.dtype}")


def finite(card: Card) -> None:
    """No NaN or infinity from ordinary weights, nor from a tensor that was not tuned."""
    base, tuned = _inputs(card)
    expect(bool(torch.isfinite(card.fn(base, tuned)).all()), card, "gave a number that is not finite")
    expect(bool(torch.isfinite(card.fn(base, [base.clone()])).all()), card, "an untouched tensor gave NaN or infinity")


CHECKS = (keeps_form, finite)
