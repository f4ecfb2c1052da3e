"""A bigram table trained by gradient descent: the smallest model on which a loss shows its dynamics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator


def forget_rise(
    loss: Callable[[Scored, Scored], Tensor], *, steps: int, lr: float = 0.5, vocab: int = 12, seed: int = 0
) -> float:
    """How far ``loss`` raises the forget set's mean NLL (nats per sequence) above the reference's in ``steps`` steps.

    The model is a table of logits [V,V]; the forget set 8 random sequences of 6 tokens; plain SGD on the mean loss.
    """
    g = generator(seed, "forget_rise")
    ids = torch.randint(vocab, (8, 6), generator=g)
    reference = torch.randn(vocab, vocab, generator=g)
    table = reference.clone().requires_grad_()
    ref = Scored.from_logits(reference[ids], ids)
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss(Scored.from_logits(table[ids], ids), ref).mean(), table)
        with torch.no_grad():
            table -= lr * gradient
    return float((ref.total() - Scored.from_logits(table.detach()[ids], ids).total()).mean())
