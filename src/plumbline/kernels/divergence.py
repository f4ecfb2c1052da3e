"""Divergences and entropies of logits, with gradients, in row blocks; safe under ``-inf`` and in bfloat16."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.tiles import first_order

_LN2 = math.log(2.0)


def forward_kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    r""":math:`\mathrm{KL}(p \| q) = \sum_v p_v (\log p_v - \log q_v)`, [..., V], [..., V] -> [...] nats.

    :math:`0 \log 0 = 0`; ``inf`` where p puts mass on an id that q forbids. Gradients reach both arguments.
    """
    return _by_rows(_kl, logits_p, logits_q)


def reverse_kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    r""":math:`\mathrm{KL}(q \| p)`, the arguments of ``forward_kl`` exchanged, [...] nats."""
    return _by_rows(_kl, logits_q, logits_p)


def skewed_kl(logits_p: Tensor, logits_q: Tensor, *, alpha: float) -> Tensor:
    r""":math:`\mathrm{KL}(p \,\|\, \alpha p + (1-\alpha) q)`, [...] nats; ``forward_kl`` at 0 and zero at 1.

    Source: On the Effectiveness of the Skew Divergence for Statistical Language Analysis (Lee, 2001).

    Raises:
        InputError: alpha is outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise refuse(
            "skewed_kl",
            "alpha",
            "within [0, 1]",
            alpha,
            "pass the share of p in the mixture, 0.1 say",
        )
    if alpha == 0:
        return forward_kl(logits_p, logits_q)

    def skewed(zp: Tensor, zq: Tensor) -> Tensor:
        lp, lq = zp.log_softmax(-1), zq.log_softmax(-1)
        p = lp.exp()
        lp, lq = lp.masked_fill(p == 0, 0.0), lq.masked_fill(p == 0, 0.0)
        rest = lq + (math.log1p(-alpha) if alpha < 1 else -math.inf)
        return (p * (lp - torch.logaddexp(lp + math.log(alpha), rest))).sum(-1)

    return _by_rows(skewed, logits_p, logits_q)


def js(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    r""":math:`\frac12\mathrm{KL}(p\|m) + \frac12\mathrm{KL}(q\|m)`, :math:`m = (p+q)/2`; [...] nats in [0, ln 2]."""
    return _by_rows(_js, logits_p, logits_q)


def tv(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    r""":math:`\tfrac12 \sum_v |p_v - q_v|`, [...] in [0, 1]."""
    return _by_rows(
        lambda zp, zq: (zp.softmax(-1) - zq.softmax(-1)).abs().sum(-1) * 0.5,
        logits_p,
        logits_q,
    )


def log_probs(logits: Tensor) -> Tensor:
    r"""Log-probabilities :math:`z - \log\sum_v e^{z_v}` of logits [..., V] in float32 or wider, safe under ``-inf``."""
    return torch.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))


def entropy(logits: Tensor) -> Tensor:
    r""":math:`-\sum_v p_v \log p_v` with :math:`0 \log 0 = 0`, [..., V] -> [...] nats."""
    return _by_rows(_entropy, logits)


def topk_mass(logits: Tensor, k: int) -> Tensor:
    r"""Probability of the k most likely ids, [..., V] -> [...]; 1 where k reaches V."""
    return _by_rows(lambda z: z.softmax(-1).topk(min(k, z.shape[-1]), -1).values.sum(-1), logits)


@torch.no_grad()
def rank(logits: Tensor, labels: Tensor) -> Tensor:
    r""":math:`1 + \#\{v : z_v > z_y\}`, [..., V], [...] -> [...] int64; ties do not count."""
    rows, y = logits.flatten(0, -2), labels.flatten()[:, None]
    step = rows_per_block(logits)
    parts = [(z > z.gather(-1, i)).sum(-1) for z, i in zip(rows.split(step), y.split(step), strict=True)]
    return torch.cat(parts).add_(1).view(labels.shape)


def _kl(zp: Tensor, zq: Tensor) -> Tensor:
    lp, lq = zp.log_softmax(-1), zq.log_softmax(-1)
    p = lp.exp()
    none = p == 0  # masked before the product: 0 * inf is NaN, in the gradient too
    return (p * (lp.masked_fill(none, 0.0) - lq.masked_fill(none, 0.0))).sum(-1)


def _js(zp: Tensor, zq: Tensor) -> Tensor:
    lp, lq = zp.log_softmax(-1), zq.log_softmax(-1)
    # log p - log m = ln 2 + logsigmoid(log p - log q); beyond 100 nats the smaller of the two is nothing
    d = (lp.clamp_min(-1e4) - lq.clamp_min(-1e4)).clamp(-100.0, 100.0)
    up, down = (
        torch.nn.functional.logsigmoid(d) + _LN2,
        torch.nn.functional.logsigmoid(-d) + _LN2,
    )
    return (lp.exp() * up + lq.exp() * down).sum(-1) * 0.5


def _entropy(z: Tensor) -> Tensor:
    logp = z.log_softmax(-1)
    p = logp.exp()
    return -(p * logp.masked_fill(p == 0, 0.0)).sum(-1)


def rows_per_block(logits: Tensor, cpu_bytes: int = 1 << 24) -> int:
    """How many float32 rows of V fit a block: ``cpu_bytes`` on a processor, where caches count, 128 MB elsewhere."""
    budget = cpu_bytes if logits.device.type == "cpu" else 1 << 27
    return max(1, budget // (4 * max(1, logits.shape[-1])))


class _ByRows(torch.autograd.Function):
    """A function of rows, block by block; backward recomputes a block, so nothing of width V is kept."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], step: int, *logits: Tensor) -> Tensor:
        ctx.save_for_backward(*logits)
        ctx.function, ctx.step = function, step
        wide = torch.promote_types(logits[0].dtype, torch.float32)
        blocks = zip(*(z.split(step) for z in logits), strict=True)
        return torch.cat([function(*(z.to(wide) for z in block)) for block in blocks])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        out = [torch.empty_like(z) if w else None for z, w in zip(ctx.saved_tensors, wanted, strict=True)]
        for i in range(0, grad.shape[0], ctx.step):
            rows = slice(i, i + ctx.step)
            with torch.enable_grad():
                block = [
                    z[rows].to(grad.dtype).detach().requires_grad_(w)
                    for z, w in zip(ctx.saved_tensors, wanted, strict=True)
                ]
                value = ctx.function(*block)
            found = torch.autograd.grad(value, [z for z in block if z.requires_grad], grad[rows])
            for whole, part in zip((o for o in out if o is not None), found, strict=True):
                whole[rows] = part.detach()
        return None, None, *first_order(out, ctx.saved_tensors)


def _by_rows(function: Callable[..., Tensor], *logits: Tensor) -> Tensor:
    if any(z.shape != logits[0].shape for z in logits):
        raise refuse(
            "vocab", "logits", "two tensors of one shape [..., V]", [tuple(z.shape) for z in logits],
            "compare the same positions over the same vocabulary",
        )  # fmt: skip
    rows = [z.reshape(-1, z.shape[-1]) for z in logits]
    if rows[0].shape[0] == 0:
        return sum(z.float().sum(-1) for z in logits)  # type: ignore[return-value]
    return _ByRows.apply(function, rows_per_block(logits[0]), *rows).view(logits[0].shape[:-1])
