"""Log-probabilities: the next-token shift, label log-probabilities, and the same straight from hidden states."""

from __future__ import annotations

import torch
from torch import Tensor


def next_token(input_ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Labels and mask of the T = L - 1 positions that have a next token."""
    kept = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    return input_ids[:, 1:], kept[:, 1:]


def label_logps(logits: Tensor, labels: Tensor) -> Tensor:
    """Gather minus logsumexp in float32."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return z.gather(-1, labels[..., None]).squeeze(-1) - z.logsumexp(-1)


def _dense(hidden, weight, bias, scale, softcap, temperature):
    z = torch.nn.functional.linear(hidden.float(), weight.float(), None if bias is None else bias.float()) * scale
    return (z if softcap is None else softcap * torch.tanh(z / softcap)) / temperature


def linear_logps(hidden, weight, labels, *, bias=None, scale=1.0, softcap=None, temperature=1.0, **_) -> Tensor:
    """Label log-probabilities of a linear head."""
    return label_logps(_dense(hidden, weight, bias, scale, softcap, temperature), labels)


def linear_entropy(hidden, weight, *, bias=None, scale=1.0, softcap=None, temperature=1.0, **_) -> Tensor:
    """Entropy of a linear head's distribution."""
    logp = torch.log_softmax(_dense(hidden, weight, bias, scale, softcap, temperature), -1)
    return -(logp.exp() * logp).sum(-1)
