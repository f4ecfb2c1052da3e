"""What methods that mix next-token distributions share: which tokens may be said, and sums that survive ``-inf``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.vocab import log_probs


def plausible(logits: Tensor, ratio: float, min_keep: int = 1) -> Tensor:
    r"""Tokens whose probability is within a factor of the likeliest one's.

    .. math:: keep_v \iff \log p_v \ge \min\bigl(\max_u \log p_u + \log ratio,\; \log p_{(min\_keep)}\bigr)

    with :math:`p_{(k)}` the k-th largest. Ties with the bound are kept; a token at -inf never is.

    Args:
        logits: [B, V] logits or log-probabilities; a constant per row makes no difference.
        ratio: in [0, 1]; 0 keeps everything, 1 only the likeliest.
        min_keep: tokens kept at least (where so many are allowed).

    Returns:
        [B, V] bool, at least one True in a row that has a finite logit.

    Raises:
        InputError: ``ratio`` is outside [0, 1], or ``min_keep`` below 1.
    """
    if not 0 <= ratio <= 1:
        raise refuse("plausible", "ratio", "a number from 0 to 1", ratio, "0 keeps everything")
    if min_keep < 1:
        raise refuse("plausible", "min_keep", "a whole number >= 1", min_keep, "keep at least the likeliest token")
    allowed = logits > -torch.inf
    if ratio == 0:
        return allowed
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    top = logits.topk(min(min_keep, logits.shape[-1]), -1).values
    return allowed & (logits >= torch.minimum(top[..., :1] + math.log(ratio), top[..., -1:]))


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    r"""The fewest likeliest tokens whose probability reaches ``top_p``: [B, V] -> [B, V] bool; 1 keeps all.

    .. math:: keep_v \iff \sum_{u :\, p_u > p_v} p_u < top\_p
    """
    if not 0 <= top_p <= 1:
        raise refuse("nucleus", "top_p", "a number from 0 to 1", top_p, "1 keeps everything")
    allowed = logits > -torch.inf
    if top_p == 1:
        return allowed
    probs = torch.softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))
    p, order = probs.sort(dim=-1, descending=True, stable=True)
    before = p.cumsum(-1) - p
    before[..., 0] = -1.0  # the likeliest token is always in
    return allowed & torch.zeros_like(allowed).scatter(-1, order, before < top_p)


def weighted(*terms: tuple[float, Tensor]) -> Tensor:
    r"""A weighted sum of log-probabilities that never makes a NaN: :math:`out_v = \sum_i w_i \log p_i(v)`.

    A term of weight 0 is left out. A token that any other term gives probability 0 is forbidden (-inf): for a positive
    weight that is the sum's own value; for a negative one it would be +inf, a preference that rests on no evidence.

    Args:
        terms: pairs ``(w, logs)``, ``logs`` [B, V] in one dtype, at least one with ``w != 0``.

    Returns:
        [B, V], not normalised; exactly ``logs`` for a single term of weight 1.
    """
    used = [(w, logs) for w, logs in terms if w != 0]
    if not used or not all(math.isfinite(w) for w, _ in used):
        raise refuse("weighted", "weights", "finite, and one of them not 0", [w for w, _ in terms], "pass finite ones")
    total = sum(w * logs.masked_fill(logs == -torch.inf, 0) for w, logs in used)
    forbidden = torch.stack([logs == -torch.inf for _, logs in used]).any(0)
    return torch.as_tensor(total).masked_fill(forbidden, -torch.inf)


def shifted(logits: Tensor, towards: Tensor, away: Tensor, weight: float) -> Tensor:
    r"""A base model moved by the difference of two others.

    .. math:: out = \log p + w\,(\log p_{towards} - \log p_{away})

    Args:
        logits, towards, away: logits [B, V] in one dtype. weight: w; 0 gives the base's log-probabilities.

    Returns:
        [B, V], not normalised.
    """
    return weighted((1.0, log_probs(logits)), (weight, log_probs(towards)), (-weight, log_probs(away)))
