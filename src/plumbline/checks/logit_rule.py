"""Properties of every logit rule: batch-independent, pure, keeps what is forbidden, float32 whatever comes in."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from plumbline.checks.common import expect, same, unchanged
from plumbline.core.declare import Card
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny

B, T, V = 3, 5, 101
Rule = Callable[[Tensor, Tensor], Tensor]


def _rule(card: Card) -> Rule:
    """A fresh rule; each model it needs is a tiny random one, and what has no default its file's ``_example`` makes."""
    models = [tiny("llama", vocab=V, seed=i) for i, _ in enumerate(card.roles)]
    example = getattr(import_module(card.module), "_example", None)
    return card.fn(*models, **(example(*models) if example else {}))


def _inputs(card: Card) -> tuple[Tensor, Tensor]:
    g = generator(0, "checks", card.name)
    tokens, logits = torch.randint(3, V, (B, T), generator=g), torch.randn(B, V, generator=g) * 3
    logits[0, 7] = -torch.inf
    return tokens, logits


def shaped(card: Card) -> None:
    """[B,V] in, [B,V] out, never NaN; a token that was forbidden stays forbidden."""
    tokens, logits = _inputs(card)
    out = unchanged(card, lambda: _rule(card)(tokens, logits), tokens, logits)
    expect(out.shape == logits.shape, card, f"must return [B,V] {tuple(logits.shape)}, got {tuple(out.shape)}")
    expect(not bool(out.isnan().any()), card, "it made a NaN out of finite logits and one -inf")
    expect(bool(out[0, 7] == -torch.inf), card, "a forbidden token (-inf) came back")


def batch_independent(card: Card) -> None:
    """A row alone gets what it gets in a batch."""
    tokens, logits = _inputs(card)
    whole = _rule(card)(tokens, logits)
    for i in range(B):
        same(card, _rule(card)(tokens[i : i + 1], logits[i : i + 1]), whole[i : i + 1], f"row {i} alone", 1e-4)


def deterministic(card: Card) -> None:
    """Two fresh rules agree to the bit."""
    tokens, logits = _inputs(card)
    same(card, _rule(card)(tokens, logits), _rule(card)(tokens, logits), "two fresh rules", 0.0)


def steady_in_bf16(card: Card) -> None:
    """bf16 logits give nearly what the same numbers in float32 give."""
    tokens, logits = _inputs(card)
    low = logits.bfloat16()
    found: Any = _rule(card)(tokens, low)
    finite = _rule(card)(tokens, low.float())
    same(card, found.float(), finite, "bf16 logits", 2e-2)


CHECKS = (shaped, batch_independent, deterministic, steady_in_bf16)
