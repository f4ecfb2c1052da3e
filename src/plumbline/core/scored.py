"""Scored: one model's view of one batch, the only thing an objective sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.head import Head, head_of, hidden_states
from plumbline.kernels.logps import label_logps, linear_entropy, linear_logps, next_token


class Scored:
    r"""Log-probabilities of a batch under one model, :math:`\log\pi(y_t \mid y_{<t})`.

    ``logps`` [B,T] float32 and ``mask`` [B,T] bool, T = L - 1 scored positions; 0 where the mask is False.
    Everything wider is made only when a loss asks: ``logits()``, ``hidden()``, ``entropy()``.
    """

    def __init__(
        self,
        logps: Tensor,
        mask: Tensor | None = None,
        *,
        logits: Callable[[], Tensor] | None = None,
        hidden: Callable[[], Tensor] | None = None,
        entropy: Callable[[], Tensor] | None = None,
    ) -> None:
        if logps.dim() != 2:
            raise refuse("Scored", "logps", "of shape [B,T]", tuple(logps.shape), "pass one row per sequence")
        mask = torch.ones_like(logps, dtype=torch.bool) if mask is None else mask.to(torch.bool)
        if mask.shape != logps.shape:
            raise refuse("Scored", "mask", f"of shape {tuple(logps.shape)}", tuple(mask.shape), "shift both alike")
        self.mask = mask
        self.logps = torch.where(mask, logps.float(), 0.0)
        self._wide = {"logits": logits, "hidden": hidden, "entropy": entropy}

    @classmethod
    def from_logits(cls, logits: Tensor, input_ids: Tensor, mask: Tensor | None = None) -> Scored:
        """From full logits [B,L,V] and ids [B,L]; ``mask`` [B,L] marks the tokens to be scored."""
        labels, kept = next_token(input_ids, mask)
        shifted = logits[:, :-1]
        return cls(label_logps(shifted, labels), kept, logits=lambda: shifted)

    @classmethod
    def of(
        cls, model: Any, input_ids: Tensor, attention_mask: Tensor | None = None, mask: Tensor | None = None
    ) -> Scored:
        """Score ids [B,L] with a transformers causal LM without ever holding [B,L,V].

        ``mask`` [B,L] marks the tokens to be scored (completions, say); it defaults to ``attention_mask``.
        """
        attention = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        labels, kept = next_token(input_ids, attention if mask is None else mask)
        states = hidden_states(model, input_ids, attention)[:, :-1]
        head: Head = head_of(model)
        rows = states[kept]
        how: dict[str, Any] = {"bias": head.bias, "scale": head.scale, "softcap": head.softcap}

        def scatter(values: Tensor) -> Tensor:
            return torch.zeros(kept.shape, dtype=values.dtype, device=values.device).masked_scatter(kept, values)

        return cls(
            scatter(linear_logps(rows, head.weight, labels[kept], **how)),
            kept,
            logits=lambda: head(states.flatten(0, 1)).unflatten(0, kept.shape),
            hidden=lambda: states,
            entropy=lambda: scatter(linear_entropy(rows, head.weight, **how)),
        )

    def total(self) -> Tensor:
        """Sum of the scored log-probabilities, [B] nats."""
        return self.logps.sum(-1)

    def mean(self) -> Tensor:
        """Mean over the scored positions, [B] nats; 0 for a row that has none."""
        return self.total() / self.mask.sum(-1).clamp(min=1)

    def _ask(self, what: str) -> Tensor:
        make = self._wide[what]
        if make is None:
            raise refuse("Scored", what, "available", "log-probabilities only", "build it with Scored.of(model, ...)")
        return make()

    def logits(self) -> Tensor:
        """Next-token logits [B,T,V] float32."""
        return self._ask("logits")

    def hidden(self) -> Tensor:
        """The states that the output head reads, [B,T,D]."""
        return self._ask("hidden")

    def entropy(self) -> Tensor:
        """Entropy of the next-token distribution, [B,T] nats; 0 where masked."""
        return self._ask("entropy")
