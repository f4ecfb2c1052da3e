"""Properties of every loss: batch-independent, blind to padding, pure, differentiable, steady in bf16.

Every role annotated ``Scored`` gets random logits; what else a loss must be given (rewards, marks, hyper-parameters
without a default) its file's ``_example(mask)`` makes: ``{name: tensor [B,...] or [B,T,...], or any other value}``.
Padding adds zeros to these, and -100 to labels (whole numbers with a -100 among them). A loss without a scored role
is differentiated with respect to the first floating tensor of its example.
"""

from __future__ import annotations

import typing
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from plumbline.checks.common import expect, same, unchanged
from plumbline.core.declare import Card
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator

B, T, V = 4, 6, 11


class _Case:
    """One batch: a leaf of logits [B,T,V] for each scored role, the ids and mask they share, and what else is asked.

    The first leaf is the one that the loss is differentiated with respect to.
    """

    def __init__(self, card: Card, dtype: torch.dtype = torch.float32) -> None:
        g = generator(0, "checks", card.name)
        hints = typing.get_type_hints(card.fn)
        self.card, self.mask = card, torch.ones(B, T, dtype=torch.bool)
        self.mask[1, -2:] = False
        self.ids = torch.randint(V, (B, T), generator=g)
        self.roles = [role for role in card.roles if hints.get(role, Scored) is Scored]
        leaves = {r: torch.randn(B, T, V, generator=g) * 2 for r in self.roles}
        example = getattr(import_module(card.module), "_example", None)
        self.given: dict[str, Any] = example(self.mask) if example else {}
        if not leaves:
            floating = [n for n, x in self.given.items() if isinstance(x, Tensor) and x.is_floating_point()]
            expect(bool(floating), card, "needs a Scored role, or an _example(mask) that holds a floating tensor")
            leaves = {floating[0]: self.given.pop(floating[0])}
        self.leaves = {n: x.to(dtype).requires_grad_() for n, x in leaves.items()}

    def padded(self, by: int) -> _Case:
        """The same with ``by`` more positions that count for nothing."""
        longer = _Case(self.card)
        longer.mask = torch.cat([self.mask, torch.zeros(B, by, dtype=torch.bool)], 1)
        longer.ids = torch.cat([self.ids, torch.zeros(B, by, dtype=torch.long)], 1)
        empty = torch.full((B, by, V), -torch.inf)
        leaves = {n: torch.cat([x, empty], 1) if n in self.roles else _lengthen(x, by) for n, x in self.leaves.items()}
        longer.leaves = {n: x.detach().requires_grad_() for n, x in leaves.items()}
        longer.given = {n: _lengthen(x, by) for n, x in self.given.items()}
        return longer

    def rows(self, which: Tensor) -> _Case:
        """Some of the rows, sharing the leaves' graph."""
        part = _Case(self.card)
        part.mask, part.ids = self.mask[which], self.ids[which]
        part.leaves = {r: x[which] for r, x in self.leaves.items()}
        part.given = {n: x[which] if isinstance(x, Tensor) else x for n, x in self.given.items()}
        return part

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.leaves.values(), *(x for x in self.given.values() if isinstance(x, Tensor))]

    def loss(self) -> Tensor:
        leaves = {n: _scored(x, self.ids, self.mask) if n in self.roles else x for n, x in self.leaves.items()}
        return self.card.fn(**leaves, **self.given)


def _scored(logits: Tensor, ids: Tensor, mask: Tensor) -> Scored:
    return Scored.from_logits(logits, ids, mask, shift=False)


def _lengthen(x: Any, by: int) -> Any:
    if not (isinstance(x, Tensor) and x.dim() > 1 and x.shape[1] == T):
        return x
    labels = not x.is_floating_point() and bool((x == -100).any())
    return torch.cat([x, x.new_full((B, by, *x.shape[2:]), -100 if labels else 0)], 1)


def per_sequence(card: Card) -> None:
    """[B] or [B,T] out, the same for a row alone as in a batch; a loss that needs its whole batch says so."""
    case = _Case(card)
    whole = case.loss()
    if "batch" in card.needs:
        expect(whole.dim() in (1, 2), card, f"must return a loss per row or group, got {tuple(whole.shape)}")
        return
    expect(whole.shape in {(B,), (B, T)}, card, f"must return [B] or [B,T], got {tuple(whole.shape)}")
    for i in range(B):
        same(card, case.rows(torch.tensor([i])).loss(), whole[i : i + 1], f"row {i} alone")


def blind_to_padding(card: Card) -> None:
    """Padding with -inf changes neither loss nor gradient."""
    plain = _Case(card)
    padded = plain.padded(3)
    loss, longer = plain.loss(), padded.loss()
    same(card, longer if longer.dim() == 1 else longer[:, :T], loss, "padded by three positions")
    first = next(iter(plain.leaves))
    ours = torch.autograd.grad(loss.sum(), plain.leaves[first])[0]
    theirs = torch.autograd.grad(longer.sum(), padded.leaves[first])[0]
    same(card, theirs[:, :T], ours, "gradient when padded")
    expect(bool((theirs[:, T:] == 0).all()), card, "padding received a gradient")


def pure(card: Card) -> None:
    """Inputs unchanged, the same result twice."""
    case = _Case(card)
    first = unchanged(card, case.loss, *case.tensors)
    same(card, case.loss(), first, "called twice", 0.0)


def differentiable(card: Card) -> None:
    """A finite, non-zero gradient reaches the trained model."""
    case = _Case(card)
    found = torch.autograd.grad(case.loss().sum(), next(iter(case.leaves.values())))[0]
    expect(bool(torch.isfinite(found).all()), card, "the gradient is not finite")
    expect(bool((found != 0).any()), card, "no gradient reaches the first argument")


def steady_in_bf16(card: Card) -> None:
    """Inputs rounded to bf16 give nearly the float32 loss, in float32."""
    low, wide = _Case(card, torch.bfloat16), _Case(card)
    wide.leaves = {r: x.detach().float() for r, x in low.leaves.items()}
    found = low.loss()
    expect(found.dtype == torch.float32, card, f"must compute in float32, got {found.dtype}")
    same(card, found, wide.loss(), "bf16 inputs", 1e-3)


CHECKS = (per_sequence, blind_to_padding, pure, differentiable, steady_in_bf16)
