"""What a loss may ask of next-token distributions, from a head's input or from logits: two classes, the same answers.

N positions, V ids. Everything is float32 (float64 for float64 input) and in nats; gradients reach the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.kernels import divergence as dense
from plumbline.kernels.linear_extras import Moments, linear_moments, linear_sample, support_logps
from plumbline.kernels.logps import (
    label_logps,
    linear_js,
    linear_kl,
    linear_logps,
    linear_reverse_kl,
    linear_stats,
)

Support = tuple[Tensor, Tensor]  # kept ids [M] and offsets [N + 1]


class HeadView:
    """Positions [N, D] of a linear head (``kernels.head.Head``): ``[N, V]`` is never held."""

    def __init__(self, hidden: Tensor, head: Any, labels: Tensor, temperature: float = 1.0) -> None:
        self.rows, self.labels, self.temperature = hidden, labels, temperature
        self.weight, self.bias, self.scale, self.softcap = head.weight, head.bias, head.scale, head.softcap
        self.head = head
        self._law: dict[str, Any] = {"bias": self.bias, "scale": self.scale, "softcap": self.softcap}

    def logps(self) -> Tensor:
        """Of the labels, [N]."""
        return linear_logps(self.rows, self.weight, self.labels, temperature=self.temperature, **self._law)

    def logps_and_entropy(self) -> tuple[Tensor, Tensor]:
        """Both [N], in one pass over the vocabulary."""
        ids = self.labels[:, None]
        stats = linear_stats(self.rows, self.weight, ids, entropy=True, temperature=self.temperature, **self._law)
        return stats.logps[:, 0], stats.entropy

    def logps_of(self, ids: Tensor) -> Tensor:
        """Of any ids [N, K], [N, K]."""
        return linear_logps(self.rows, self.weight, ids, temperature=self.temperature, **self._law)

    def logps_in(self, support: Support) -> Tensor:
        """Of the labels among the kept ids of each position, [N]."""
        return support_logps(self.rows, self.weight, self.labels, *support, temperature=self.temperature, **self._law)

    def sample(self, k: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        """k ids a position, [N, k]."""
        how = self._law | {"temperature": temperature, "generator": generator}
        return linear_sample(self.rows, self.weight.detach(), k, **how)

    def logits(self) -> Tensor:
        """[N, V]."""
        z = self.head(self.rows)
        return z if self.temperature == 1.0 else z / self.temperature

    def moments(self) -> Moments:
        """Of the logits; a soft cap, which is not linear, takes them all."""
        if self.softcap is not None:
            return LogitView(self.logits(), self.labels).moments()
        factor = self.scale / self.temperature
        bias = None if self.bias is None else self.bias * factor
        return linear_moments(self.rows * factor, self.weight, self.labels, bias=bias)

    def diverge(self, other: HeadView | LogitView, blockwise: Callable[..., Tensor], tau: float | None) -> Tensor:
        """A divergence of ``kernels.linear_kl`` against a detached other, [N]; ``tau`` is the other's temperature."""
        tau = other.temperature if tau is None else tau
        if isinstance(other, HeadView):
            how: dict[str, Any] = {"temperature": self.temperature, "teacher_temperature": tau}
            return blockwise(self.rows, self, other.rows, other, **how)
        return LogitView(self.logits(), self.labels).diverge(other, blockwise, tau)


class LogitView:
    """Positions with their logits [N, V] at hand."""

    def __init__(self, logits: Tensor, labels: Tensor, temperature: float = 1.0) -> None:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        self.raw, self.labels, self.temperature = wide, labels, temperature

    def logits(self) -> Tensor:
        return self.raw if self.temperature == 1.0 else self.raw / self.temperature

    def logps(self) -> Tensor:
        return label_logps(self.logits(), self.labels)

    def logps_and_entropy(self) -> tuple[Tensor, Tensor]:
        return self.logps(), dense.entropy(self.logits())

    def logps_of(self, ids: Tensor) -> Tensor:
        z = self.logits()
        return z.gather(-1, ids) - z.logsumexp(-1, keepdim=True)

    def logps_in(self, support: Support) -> Tensor:
        ids, offsets = support
        kept = torch.zeros_like(self.raw, dtype=torch.bool).scatter(-1, self.labels[:, None], True)
        kept[torch.repeat_interleave(torch.arange(len(kept), device=ids.device), offsets.diff()), ids] = True
        return label_logps(self.logits().masked_fill(~kept, -torch.inf), self.labels)

    def sample(self, k: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        p = (self.raw.detach() / temperature).softmax(-1)
        return torch.multinomial(p, k, replacement=True, generator=generator)

    def moments(self) -> Moments:
        z = self.logits()
        return Moments(z.gather(-1, self.labels[:, None])[:, 0], z.mean(-1), z.square().mean(-1), z.shape[-1])

    def diverge(self, other: HeadView | LogitView, blockwise: Callable[..., Tensor], tau: float | None) -> Tensor:
        tau = other.temperature if tau is None else tau
        z = other.raw if isinstance(other, LogitView) else other.logits() * other.temperature
        return _DENSE[blockwise](z.detach() / tau, self.logits())


_DENSE: dict[Callable[..., Tensor], Callable[[Tensor, Tensor], Tensor]] = {
    linear_kl: dense.forward_kl, linear_reverse_kl: dense.reverse_kl, linear_js: dense.js,
}  # fmt: skip
