"""What the samplers of masked diffusion share: the result, and putting tokens where masks were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.decode.masked import check_ids, masked_probs
from plumbline.kernels.choice import Chooser


@dataclass
class Unmasked:
    """A batch that a masked diffusion sampler has filled in.

    Attributes:
        tokens: [B, L]. order: [B, L], when each position was filled: the number of the row's draw from 0 (positions
            filled in one call share it); -1 where it was given. times: [B, L] diffusion times at which positions were
            filled, NaN where given; None where the network needs no time. calls: forward passes. steps: time steps,
            of which those that unmask nothing need no pass.
    """

    tokens: Tensor
    order: Tensor
    times: Tensor | None = None
    calls: int = 0
    steps: int = 0


def begin(where: str, x: Tensor, mask_token_id: int) -> Unmasked:
    """A result with nothing filled in yet."""
    check_ids(where, x)
    return Unmasked(x.clone(), torch.full_like(x, -1))


def fill(
    out: Unmasked, row: int, positions: Sequence[int], logits: Tensor, mask_token_id: int, temperature: float,
    chooser: Chooser, rank: int,
) -> None:  # fmt: skip
    """Draw a token for each of the ``positions`` of a row from its own logits [len(positions), V], independently."""
    probs = masked_probs(logits, mask_token_id, temperature)
    for at, p in zip(positions, probs, strict=True):
        out.tokens[row, at] = chooser.categorical(p)
        out.order[row, at] = rank


def check_logits(where: str, logits: Tensor, x: Tensor) -> Tensor:
    """The network's logits, if they are [B, L, V]."""
    if logits.dim() != 3 or logits.shape[:2] != x.shape:
        raise refuse(where, "logits_fn", f"logits {[*x.shape, 'V']}", list(logits.shape), "return one row a position")
    return logits
