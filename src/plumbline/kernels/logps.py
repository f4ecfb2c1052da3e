"""Log-probabilities: the next-token shift, label log-probabilities, and the same straight from hidden states."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.linear_kl import linear_js, linear_kl, linear_reverse_kl
from plumbline.kernels.tiles import (
    KEEP_BYTES,
    TOKEN_BLOCK,
    VOCAB_BLOCK,
    Gradients,
    Law,
    Tiles,
    check,
    check_ids,
    first_order,
)

__all__ = [
    "Stats", "label_logps", "linear_entropy", "linear_js", "linear_kl", "linear_logps", "linear_reverse_kl",
    "linear_stats", "linear_topk", "next_token",
]  # fmt: skip


def next_token(input_ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Labels and mask of the T = L - 1 predictions: position t predicts token t + 1.

    Args:
        input_ids: [B, L]. mask: [B, L], nonzero on the tokens to be scored; all of them when left out.

    Returns:
        labels [B, T] and mask [B, T] bool. The first token is never scored.

    Raises:
        InputError: the shapes differ, or a row has no two tokens.
    """
    mask = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    if input_ids.dim() != 2 or mask.shape != input_ids.shape:
        shapes = [tuple(input_ids.shape), tuple(mask.shape)]
        raise refuse("next_token", "input_ids and mask", "both of shape [B,L]", shapes, "pass one mask entry per token")
    return input_ids[:, 1:], mask[:, 1:]


def label_logps(logits: Tensor, labels: Tensor) -> Tensor:
    r""":math:`\log p_y = z_y - \log\sum_v e^{z_v}` in float32 (float64 for float64 logits).

    Args:
        logits: [..., V]; ``-inf`` forbids an id. labels: [...] in [0, V).

    Returns:
        [...] nats; ``-inf`` for a forbidden label.

    Raises:
        InputError: shapes differ, or a label is outside [0, V).
    """
    check_ids("label_logps", labels, tuple(logits.shape[:-1]), logits.shape[-1])
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return z.gather(-1, labels[..., None]).squeeze(-1) - z.logsumexp(-1)


class Stats(NamedTuple):
    """``logps`` [N,K] of the ids asked for, ``lse`` [N], ``entropy`` [N] nats (zeros unless asked for)."""

    logps: Tensor
    lse: Tensor
    entropy: Tensor


def linear_logps(
    hidden: Tensor, weight: Tensor, labels: Tensor, *, bias: Tensor | None = None, scale: float = 1.0,
    softcap: float | None = None, temperature: float = 1.0, token_block: int = TOKEN_BLOCK,
    vocab_block: int = VOCAB_BLOCK, keep_bytes: int = KEEP_BYTES,
) -> Tensor:  # fmt: skip
    r"""Label log-probabilities :math:`z_y - \log\sum_v e^{z_v}`, without holding ``[N, V]``, forward or backward.

    .. math:: a = h W^\top + b,\qquad z = c\tanh(s a/c)/\tau \;\text{ or }\; s a/\tau

    Args:
        hidden: [N, D]. weight: [V, D]. labels: [N], or [N, K] for K ids per position. bias: [V].
        scale, softcap, temperature: s, c and tau above. token_block, vocab_block: size of a tile.
        keep_bytes: bytes of logits kept for the backward pass, which forms the others again; 0 keeps none.

    Returns:
        float32 of the labels' shape, nats (float64 for float64 inputs). Gradients reach hidden, weight and bias,
        summed in float32 and cast once; a second derivative raises.

    Raises:
        InputError: a label outside [0, V), shapes that do not fit, a temperature or soft cap that is not positive.
    """
    ids = labels[:, None] if labels.dim() == 1 else labels
    stats = linear_stats(
        hidden, weight, ids, bias=bias, scale=scale, softcap=softcap, temperature=temperature,
        token_block=token_block, vocab_block=vocab_block, keep_bytes=keep_bytes,
    )  # fmt: skip
    return stats.logps[:, 0] if labels.dim() == 1 else stats.logps


def linear_entropy(
    hidden: Tensor, weight: Tensor, *, bias: Tensor | None = None, scale: float = 1.0, softcap: float | None = None,
    temperature: float = 1.0, token_block: int = TOKEN_BLOCK, vocab_block: int = VOCAB_BLOCK,
) -> Tensor:  # fmt: skip
    r""":math:`-\sum_v p_v \log p_v` of a linear head's distribution, [N] nats; arguments as ``linear_logps``."""
    none = torch.empty(hidden.shape[0], 0, dtype=torch.long, device=hidden.device)
    return linear_stats(
        hidden, weight, none, entropy=True, bias=bias, scale=scale, softcap=softcap, temperature=temperature,
        token_block=token_block, vocab_block=vocab_block,
    ).entropy  # fmt: skip


def linear_stats(
    hidden: Tensor, weight: Tensor, ids: Tensor, *, entropy: bool = False, bias: Tensor | None = None,
    scale: float = 1.0, softcap: float | None = None, temperature: float = 1.0, token_block: int = TOKEN_BLOCK,
    vocab_block: int = VOCAB_BLOCK, keep_bytes: int = KEEP_BYTES,
) -> Stats:  # fmt: skip
    """Log-probabilities of ids [N, K], the logsumexp and the entropy in one pass; arguments as ``linear_logps``."""
    law = Law(scale, softcap, temperature)
    check("linear_logps", hidden, weight, law, token_block, vocab_block)
    check_ids("linear_logps", ids, (hidden.shape[0],), weight.shape[0])
    if hidden.shape[0] == 0:  # nothing to score, still part of the graph
        zero = hidden.float().sum(-1) + weight[:1].float().sum() * 0
        return Stats(zero[:, None].expand(0, ids.shape[1]), zero, zero)
    trained = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, weight, bias))
    blocks = token_block, vocab_block, keep_bytes if trained else 0
    return Stats(*_LinearStats.apply(hidden, weight, bias, ids, law, entropy, *blocks))


@torch.no_grad()
def linear_topk(
    hidden: Tensor, weight: Tensor, k: int, *, bias: Tensor | None = None, scale: float = 1.0,
    softcap: float | None = None, temperature: float = 1.0, token_block: int = TOKEN_BLOCK,
    vocab_block: int = VOCAB_BLOCK,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Log-probabilities [N, k] and ids [N, k] of the k most likely tokens, best first; no gradient.

    Arguments as ``linear_logps``; which of several equal logits is kept is unspecified.
    """
    law = Law(scale, softcap, temperature)
    check("linear_topk", hidden, weight, law, token_block, vocab_block)
    if not 1 <= k <= weight.shape[0]:
        raise refuse("linear_topk", "k", f"within [1, {weight.shape[0]}]", k, "ask for no more ids than there are")
    tiles = Tiles(hidden, weight, bias, law, token_block, vocab_block)
    buffer = tiles.buffer()
    parts = []
    for rows in tiles.rows():
        best = buffer.new_empty(rows.stop - rows.start, 0)
        ids = torch.empty(best.shape, dtype=torch.long, device=best.device)
        lse = torch.full_like(best.sum(-1), -torch.inf)
        for columns in tiles.columns():
            z = tiles.logits(rows, columns, buffer)
            found = z.topk(min(k, z.shape[1]), -1)
            lse = torch.logaddexp(lse, z.logsumexp(-1))
            best, ids = torch.cat([best, found.values], 1), torch.cat([ids, found.indices + columns.start], 1)
            best, order = best.topk(min(k, best.shape[1]), -1)
            ids = ids.gather(1, order)
        parts.append((best - lse[:, None], ids))
    if not parts:
        return hidden.new_empty(0, k, dtype=tiles.dtype), torch.empty(0, k, dtype=torch.long, device=hidden.device)
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


class _LinearStats(torch.autograd.Function):
    r"""Online logsumexp forward; backward forms tiles again, for the upstream gradient is not known before it.

    .. math:: dz_j = \sum_k g_k 1[j = y_k] + p_j\,(g_{lse} - \sum_k g_k) - g_H\,p_j(\log p_j + H)
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, law: Law, entropy: bool,
        token_block: int, vocab_block: int, keep_bytes: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        tiles = Tiles(hidden, weight, bias, law, token_block, vocab_block)
        at_ids = tiles.scaled.new_zeros(ids.shape)
        lse, ent = tiles.scaled.new_zeros(2, tiles.n).unbind()
        buffer, spare = tiles.buffer(), tiles.buffer()
        kept: dict[tuple[int, int], Tensor] = {}
        limit = keep_bytes // (tiles.n * lse.itemsize)  # columns of all rows; backward frees them before the rest
        for rows in tiles.rows():
            top = lse.new_full((rows.stop - rows.start,), torch.finfo(lse.dtype).min)
            mass, mean = torch.zeros_like(top), torch.zeros_like(top)  # sums of e^(z - top), and of that times z - top
            for columns in tiles.columns():
                keep = columns.stop <= limit
                z = tiles.logits(rows, columns, tiles.buffer() if keep else buffer)
                if keep:
                    kept[rows.start, columns.start] = z
                _pick(z, ids[rows], columns, at_ids[rows])
                higher = torch.maximum(top, z.amax(-1))
                drop = top - higher
                shrink = drop.exp()
                below = torch.sub(z, higher[:, None], out=tiles.shaped(spare, rows, columns))
                e = torch.exp(below) if entropy else below.exp_()
                if entropy:
                    mean = shrink * (mean + mass * drop) + below.clamp_min_(-1e30).mul_(e).sum(-1)
                mass = mass * shrink + e.sum(-1)
                top = higher
            lse[rows] = top + mass.log()
            if entropy:
                ent[rows] = mass.log() - mean / mass
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, bias, ids, lse, ent)
        ctx.law, ctx.blocks, ctx.kept = law, (token_block, vocab_block), kept
        return at_ids - lse[:, None], lse, ent

    @staticmethod
    def backward(
        ctx: Any, g_ids: Tensor | None, g_lse: Tensor | None, g_ent: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if g_ids is None and g_lse is None and g_ent is None:
            return (None,) * 9
        hidden, weight, bias, *_ = ctx.saved_tensors
        with torch.no_grad():
            grads = _stats_gradients(ctx, g_ids, g_lse, g_ent)
        return *first_order(grads.cast(), (hidden, weight, bias)), *(None,) * 6


def _stats_gradients(ctx: Any, g_ids: Tensor | None, g_lse: Tensor | None, g_ent: Tensor | None) -> Gradients:
    hidden, weight, bias, ids, lse, ent = ctx.saved_tensors
    tiles = Tiles(hidden, weight, bias, ctx.law, *ctx.blocks)
    grads = Gradients(tiles, ctx.needs_input_grad[:3])
    buffer = tiles.buffer()
    p_buffer = tiles.buffer() if g_ent is not None or ctx.law.softcap is not None else None
    along_p = torch.zeros_like(lse) if g_lse is None else g_lse
    along_p = along_p if g_ids is None else along_p - g_ids.sum(-1)
    for columns in tiles.columns():
        for rows in tiles.rows():
            z = ctx.kept.pop((rows.start, columns.start), None)  # a second backward finds none left
            z = tiles.logits(rows, columns, buffer) if z is None else z
            p = torch.sub(
                z, lse[rows, None], out=z if p_buffer is None else tiles.shaped(p_buffer, rows, columns)
            ).exp_()
            if g_ent is None:
                dz = p.mul_(along_p[rows, None])
            else:
                pull = (z - (lse - ent)[rows, None]).clamp_min_(-1e30).mul_(-g_ent[rows, None])
                dz = p.mul_(pull.add_(along_p[rows, None]))
            if g_ids is not None:
                row, k = ((ids[rows] >= columns.start) & (ids[rows] < columns.stop)).nonzero(as_tuple=True)
                dz.index_put_((row, ids[rows][row, k] - columns.start), g_ids[rows][row, k], accumulate=True)
            grads.add(rows, columns, tiles.flatten_(dz, z))
    return grads


def _pick(z: Tensor, ids: Tensor, columns: slice, out: Tensor) -> None:
    """Write z at those of ids [R, K] that fall into this block of columns."""
    row, k = ((ids >= columns.start) & (ids < columns.stop)).nonzero(as_tuple=True)
    out[row, k] = z[row, ids[row, k] - columns.start]
