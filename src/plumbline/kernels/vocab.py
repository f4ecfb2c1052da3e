"""Sums over the vocabulary: divergences, entropies, ranks and top ids of logits, in row blocks, safe under ``-inf``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.divergence import (
    entropy,
    forward_kl,
    js,
    log_probs,
    rank,
    reverse_kl,
    rows_per_block,
    skewed_kl,
    topk_mass,
    tv,
)
from plumbline.kernels.tiles import check_ids

__all__ = [
    "compare",
    "entropy",
    "forward_kl",
    "js",
    "likeliest",
    "log_probs",
    "rank",
    "reverse_kl",
    "skewed_kl",
    "topk_mass",
    "tv",
]

_LN2 = math.log(2.0)
_WIDTH = 64  # ids per block in the two-stage search for the largest logits


@torch.no_grad()
def compare(
    logits_a: Tensor, logits_b: Tensor, labels: Tensor, *, top_k: tuple[int, ...] = (5, 10), keep: int = 5,
    chi2: bool = False,
) -> dict[str, Tensor]:  # fmt: skip
    r"""Everything two models say about the same positions, in one pass over the vocabulary.

    With :math:`d = \log p_a - \log p_b`, ``lo`` and ``hi`` the smaller and larger of the two probabilities:
    :math:`\mathrm{KL}_{ab} = \sum p_a d`, :math:`\mathrm{KL}_{ba} = -\sum p_b d`, :math:`TV = \frac12\sum(hi - lo)`,
    :math:`JS = \frac12\sum [(lo + hi)(\ln 2 - \log(1 + lo/hi)) - lo\,|d|]`, all exactly 0 for equal logits. Values
    are float32 (absolute error near 1e-7 plus 1e-6 of the value); divergences that rounding makes negative are 0.

    Args:
        logits_a, logits_b: [N, V]. labels: [N] ids of the token that came.
        top_k: sizes k of ``overlap_k``, the ids that both top-k sets share; ties go to the lower id.
        keep: how many top ids and log-probabilities of either model to keep, [N, keep].
        chi2: also ``log1p_chi2_ba`` = logsumexp(2 log p_b - log p_a).

    Returns:
        [N] columns logp, rank (1 + strictly greater logits), ties, ent, top1_p, argmax (lowest id among ties) with
        ``_a`` and ``_b``; kl_ab, kl_ba, js, tv, rank_a_of_argmax_b, rank_b_of_argmax_a, overlap_k; and the lists
        top_ids, top_logps. A row with a NaN or ``inf`` logit has NaN in every float column.

    Raises:
        InputError: shapes differ, or a label is outside [0, V).
    """
    n, vocab = logits_a.shape
    if logits_b.shape != logits_a.shape or labels.shape != (n,):
        shapes = [tuple(t.shape) for t in (logits_a, logits_b, labels)]
        raise refuse("compare", "arguments", "[N,V], [N,V] and [N]", shapes, "align the positions and vocabularies")
    check_ids("compare", labels, (n,), vocab)
    wide = torch.promote_types(logits_a.dtype, torch.float32)
    step = min(n, rows_per_block(logits_a, 1 << 21)) or 1
    buffers = [torch.empty(step, vocab, dtype=wide, device=logits_a.device) for _ in range(7)]
    parts = []
    for i in range(0, max(n, 1), step):
        za, zb, y = (t[i : i + step] for t in (logits_a, logits_b, labels))
        parts.append(_compare_rows(za.to(wide), zb.to(wide), y, [b[: len(y)] for b in buffers], top_k, keep, chi2))
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _compare_rows(
    za: Tensor, zb: Tensor, y: Tensor, buffers: list[Tensor], top_k: tuple[int, ...], keep: int, chi2: bool
) -> dict[str, Tensor]:
    pa, pb, *spare = buffers
    k = max(keep, 1, *top_k)
    a, top_a, lse_a = _one_model(za, y, pa, spare[0], k)
    b, top_b, lse_b = _one_model(zb, y, pb, spare[0], k)
    out = {f"{name}_{arm}": v for arm, found in (("a", a), ("b", b)) for name, v in found.items()}
    out["rank_a_of_argmax_b"] = _count(torch.gt, za, top_b[:, :1], spare[0]) + 1
    out["rank_b_of_argmax_a"] = _count(torch.gt, zb, top_a[:, :1], spare[0]) + 1
    out |= _divergences(za, zb, pa, pb, lse_a - lse_b, spare)
    for size in top_k:
        out[f"overlap_{size}"] = (top_a[:, :size, None] == top_b[:, None, :size]).sum((1, 2), dtype=torch.uint8)
    if chi2:
        out["log1p_chi2_ba"] = torch.logsumexp(2 * (zb - lse_b) - (za - lse_a), -1).float()
    for arm, z, top, lse in (("a", za, top_a, lse_a), ("b", zb, top_b, lse_b)):
        out[f"top_ids_{arm}"] = top[:, :keep].int()
        out[f"top_logps_{arm}"] = (z.gather(-1, top[:, :keep]) - lse).float()
    broken = ~torch.isfinite(out["kl_ab"] + out["kl_ba"] + out["ent_a"] + out["ent_b"])
    if broken.any():  # an id that a model forbids makes 0 * inf above: only those rows are done again
        out = {name: v.clone() for name, v in out.items()}
        for name, v in _careful(za[broken].double(), zb[broken].double()).items():
            out[name][broken] = v.to(out[name].dtype)
        nan = broken & torch.isnan(out["kl_ab"] + out["kl_ba"])
        for v in out.values():
            if v.is_floating_point():
                v[nan] = torch.nan
    return out


def _one_model(z: Tensor, y: Tensor, p: Tensor, spare: Tensor, k: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Columns of one model, its top ids [R, k] and logsumexp [R, 1] float64; leaves the probabilities in ``p``."""
    torch.softmax(z, -1, out=p)
    top = _largest(z, k)
    mass = p.sum(-1, keepdim=True)  # softmax's own sum is off by up to 1e-6 at large V; this one is pairwise
    best = p.gather(-1, top[:, :1]) / mass
    lse = z.gather(-1, top[:, :1]).double() - best.double().log()
    at_label = z.gather(-1, y[:, None])
    # relative to the largest logit, which keeps the digits of a small entropy
    below = torch.sub(z, z.gather(-1, top[:, :1]), out=spare).mul_(p).sum(-1, keepdim=True)
    return {
        "logp": (at_label - lse)[:, 0].float(),
        "rank": _count(torch.gt, z, y[:, None], spare) + 1,
        "ties": (_count(torch.eq, z, y[:, None], spare) - 1).clamp_(0, 32767).short(),
        "ent": (-best.double().log() - below.double() / mass)[:, 0].clamp_min_(0).float(),
        "top1_p": best[:, 0].float(),
        "argmax": top[:, 0].int(),
    }, top, lse  # fmt: skip


def _divergences(
    za: Tensor, zb: Tensor, pa: Tensor, pb: Tensor, offset: Tensor, spare: list[Tensor]
) -> dict[str, Tensor]:
    d, lo, hi, both, product = spare
    torch.sub(za, zb, out=d).sub_(offset.to(d.dtype))
    kl_ab, kl_ba = _dot(pa, d, product), 0 - _dot(pb, d, product)
    torch.minimum(pa, pb, out=lo)
    torch.maximum(pa, pb, out=hi)
    tv_ = torch.sub(hi, lo, out=both).sum(-1) * 0.5
    torch.add(hi, lo, out=both)
    ratio = torch.div(lo, hi.clamp_min_(torch.finfo(hi.dtype).tiny), out=hi).log1p_().sub_(_LN2)
    js_ = 0 - 0.5 * (_dot(both, ratio, product) + _dot(lo, d.abs_(), product))
    return {
        "kl_ab": kl_ab.clamp_min_(0).float(),
        "kl_ba": kl_ba.clamp_min_(0).float(),
        "js": js_.clamp_(0, _LN2).float(),
        "tv": tv_.clamp_(0, 1).float(),
    }


def _careful(za: Tensor, zb: Tensor) -> dict[str, Tensor]:
    return {
        "kl_ab": forward_kl(za, zb).clamp_min(0),
        "kl_ba": forward_kl(zb, za).clamp_min(0),
        "js": js(za, zb).clamp(0, _LN2),
        "tv": tv(za, zb),
        "ent_a": entropy(za),
        "ent_b": entropy(zb),
    }


def _dot(x: Tensor, y: Tensor, spare: Tensor) -> Tensor:
    return torch.mul(x, y, out=spare).sum(-1)


def _count(relation: Callable[..., Tensor], z: Tensor, ids: Tensor, spare: Tensor) -> Tensor:
    # written as floats: summing these is several times faster than summing booleans, and exact below 2**24
    return relation(z, z.gather(-1, ids), out=spare).sum(-1).int()


def _largest(z: Tensor, k: int) -> Tensor:
    """Ids [R, min(k, V)] of the largest logits in order, the lower id first among equals.

    The k blocks with the largest maxima hold the k largest logits, so only those are sorted.
    """
    vocab = z.shape[-1]
    k = min(k, vocab)
    whole = vocab // _WIDTH
    if whole <= 2 * k:
        ids = torch.arange(vocab, device=z.device).expand_as(z)
    else:
        peaks = z[:, : whole * _WIDTH].unflatten(-1, (whole, _WIDTH)).amax(-1)
        if vocab % _WIDTH:
            peaks = torch.cat([peaks, z[:, whole * _WIDTH :].amax(-1, keepdim=True)], -1)
        numbers = torch.arange(peaks.shape[-1], device=z.device)
        blocks = _ordered(peaks, numbers).topk(k, -1).indices
        ids = (blocks[:, :, None] * _WIDTH + torch.arange(_WIDTH, device=z.device)).flatten(1)
        z = z.gather(-1, ids.clamp_max(vocab - 1)).masked_fill_(ids >= vocab, -torch.inf)
    return ids.gather(-1, _ordered(z, ids).topk(k, -1).indices)


def likeliest(logits: Tensor, k: int = 1) -> Tensor:
    """Ids [R, min(k, V)] of the largest logits [R, V], largest first; of equal ones the first for k = 1, any beyond.

    Block maxima first: several times faster than ``argmax`` and ``topk`` over a wide vocabulary on a CPU.
    """
    vocab = logits.shape[-1]
    k, whole = min(k, vocab), vocab // _WIDTH
    if whole <= max(2 * k, _WIDTH):
        return logits.argmax(-1, keepdim=True) if k == 1 else logits.topk(k, -1).indices
    peaks = logits[:, : whole * _WIDTH].unflatten(-1, (whole, _WIDTH)).amax(-1)
    if vocab % _WIDTH:
        peaks = torch.cat([peaks, logits[:, whole * _WIDTH :].amax(-1, keepdim=True)], -1)
    blocks = peaks.argmax(-1, keepdim=True) if k == 1 else peaks.topk(k, -1).indices
    ids = (blocks[:, :, None] * _WIDTH + torch.arange(_WIDTH, device=logits.device)).flatten(1)
    near = logits.gather(-1, ids.clamp_max(vocab - 1)).masked_fill_(ids >= vocab, -torch.inf)
    return ids.gather(-1, near.argmax(-1, keepdim=True) if k == 1 else near.topk(k, -1).indices)


def _ordered(values: Tensor, ids: Tensor) -> Tensor:
    """int64 keys that sort as (value, lower id first): the float's bits, made monotone, above the id's complement."""
    bits = (values.float() + 0.0).view(torch.int32).long()  # + 0.0 turns -0.0 into 0.0
    monotone = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (monotone << 32) - ids
