"""Properties of every loss: batch-independent, blind to padding, pure, differentiable, steady in bf16."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.checks.common import expect, same, unchanged
from plumbline.core.declare import Card
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator

B, T = 4, 6


def _logps(card: Card, padding: int = 0, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], Tensor]:
    """One [B,T] leaf per role, and the mask they share; padded positions hold -inf."""
    g = generator(0, "checks", card.name)
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[1, -2:] = False
    roles = [-torch.rand(B, T, generator=g) * 3 - 0.05 for _ in card.roles]
    mask = torch.cat([mask, torch.zeros(B, padding, dtype=torch.bool)], 1)
    pad = torch.full((B, padding), -torch.inf)
    return [torch.cat([x, pad], 1).to(dtype).requires_grad_() for x in roles], mask


def _call(card: Card, leaves: list[Tensor], mask: Tensor) -> Tensor:
    return card.fn(*[Scored(x, mask) for x in leaves])


def per_sequence(card: Card) -> None:
    """[B] or [B,T] out, the same for a row alone as in a batch."""
    leaves, mask = _logps(card)
    whole = _call(card, leaves, mask)
    expect(whole.shape in {(B,), (B, T)}, card, f"must return [B] or [B,T], got {tuple(whole.shape)}")
    for i in range(B):
        same(card, _call(card, [x[i : i + 1] for x in leaves], mask[i : i + 1]), whole[i : i + 1], f"row {i} alone")


def blind_to_padding(card: Card) -> None:
    """Padding with -inf changes neither loss nor gradient."""
    plain, padded = _logps(card), _logps(card, padding=3)
    loss, longer = _call(card, *plain), _call(card, *padded)
    same(card, longer if longer.dim() == 1 else longer[:, :T], loss, "padded by three positions")
    ours = torch.autograd.grad(loss.sum(), plain[0][0])[0]
    theirs = torch.autograd.grad(longer.sum(), padded[0][0])[0]
    same(card, theirs[:, :T], ours, "gradient when padded")
    expect(bool((theirs[:, T:] == 0).all()), card, "padding received a gradient")


def pure(card: Card) -> None:
    """Inputs unchanged, the same result twice."""
    leaves, mask = _logps(card)
    first = unchanged(card, lambda: _call(card, leaves, mask), *leaves)
    same(card, _call(card, leaves, mask), first, "called twice", 0.0)


def differentiable(card: Card) -> None:
    """A finite, non-zero gradient reaches the trained model."""
    leaves, mask = _logps(card)
    found = torch.autograd.grad(_call(card, leaves, mask).sum(), leaves[0])[0]
    expect(bool(torch.isfinite(found).all()), card, "the gradient is not finite")
    expect(bool((found != 0).any()), card, "no gradient reaches the first role")


def steady_in_bf16(card: Card) -> None:
    """Inputs rounded to bf16 give nearly the float32 loss, in float32."""
    leaves, mask = _logps(card)
    rounded = [x.detach().bfloat16() for x in leaves]
    low = _call(card, rounded, mask)
    expect(low.dtype == torch.float32, card, f"must compute in float32, got {low.dtype}")
    same(card, low, _call(card, [x.float() for x in rounded], mask), "bf16 inputs", 1e-3)


CHECKS = (per_sequence, blind_to_padding, pure, differentiable, steady_in_bf16)
