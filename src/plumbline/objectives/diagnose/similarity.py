"""How alike two answers are in the states that predict them, and what to keep of data that is too alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.core.finding import Finding


def similarity(chosen: Tensor, chosen_mask: Tensor, rejected: Tensor, rejected_mask: Tensor) -> tuple[Tensor, Tensor]:
    r"""CHES of each pair, raw and length-normalised.

    .. math:: \langle S_w, S_l\rangle - |S_w|^2,\qquad
              \langle S_w / L_w, S_l / L_l\rangle - |S_w / L_w|^2,\qquad S = \sum_{t:\,mask} h_t

    Args:
        chosen: states [B,T,D] that predict the chosen answer, mask [B,T] of its tokens. rejected: [B,T',D], [B,T'].

    Returns:
        [B] and [B], float32 or wider.
    """
    sums, lengths = [], []
    for states, mask in ((chosen, chosen_mask), (rejected, rejected_mask)):
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        sums.append(torch.where(mask[..., None], wide, 0.0).sum(1))
        lengths.append(mask.sum(1, keepdim=True).clamp(min=1))
    (won, lost), (won_mean, lost_mean) = sums, (s / n for s, n in zip(sums, lengths, strict=True))
    return (won * (lost - won)).sum(-1), (won_mean * (lost_mean - won_mean)).sum(-1)


def keep_lowest(scores: Finding | Sequence[float] | Tensor, keep: float) -> list[int]:
    """Numbers of the pairs with the lowest scores, in their own order: what the paper's filter trains on.

    Args:
        scores: [N], or the finding of ``ches``, of which the length-normalised scores are taken. keep: the share of
            pairs that is kept; the paper names no default.

    Raises:
        InputError: keep is not within (0, 1].
    """
    if not 0 < keep <= 1:
        raise refuse("keep_lowest", "keep", "a share within (0, 1]", keep, "pass keep=0.5, say")
    values = [row["ches"] for row in scores.table] if isinstance(scores, Finding) else [float(s) for s in scores]
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    return sorted(order[: max(1, round(keep * len(values)))])
