"""Divergences between two linear heads' distributions straight from hidden states; the teacher is a constant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.tiles import TOKEN_BLOCK, VOCAB_BLOCK, Gradients, Law, Tiles, check, first_order

_LN2 = math.log(2.0)
_FAR = 1e4  # nats: stands for the distance to an id that a head forbids, wherever it is weighted by 0


class LinearHead(Protocol):
    """What a divergence needs of a head: ``kernels.head.Head`` has it."""

    @property
    def weight(self) -> Tensor: ...
    @property
    def bias(self) -> Tensor | None: ...
    @property
    def scale(self) -> float: ...
    @property
    def softcap(self) -> float | None: ...


def linear_kl(
    hidden: Tensor, head: LinearHead, teacher_hidden: Tensor, teacher_head: LinearHead, *, temperature: float = 1.0,
    teacher_temperature: float | None = None, token_block: int = TOKEN_BLOCK, vocab_block: int = VOCAB_BLOCK,
) -> Tensor:  # fmt: skip
    r""":math:`\mathrm{KL}(t \| s) = \sum_v t_v(\log t_v - \log s_v)` over the whole vocabulary, ``[N, V]`` never held.

    Args:
        hidden: [N, D] of the student. teacher_hidden: [N, D'] of the teacher, detached. head, teacher_head: anything
            with ``weight`` [V, D], ``bias``, ``scale``, ``softcap``.
        temperature, teacher_temperature: divide the logits; the second is the first's where left out.

    Returns:
        [N] nats, float32; the gradient on the student's logits is s - t.

    Raises:
        InputError: the vocabularies or the numbers of positions differ.
    """
    temperatures = temperature, temperature if teacher_temperature is None else teacher_temperature
    return _divergence(_FORWARD, hidden, head, teacher_hidden, teacher_head, temperatures, token_block, vocab_block)


def linear_reverse_kl(
    hidden: Tensor, head: LinearHead, teacher_hidden: Tensor, teacher_head: LinearHead, *, temperature: float = 1.0,
    teacher_temperature: float | None = None, token_block: int = TOKEN_BLOCK, vocab_block: int = VOCAB_BLOCK,
) -> Tensor:  # fmt: skip
    r""":math:`\mathrm{KL}(s \| t)`, gradient :math:`s_v(\log s_v - \log t_v - \mathrm{KL})`; as ``linear_kl``."""
    temperatures = temperature, temperature if teacher_temperature is None else teacher_temperature
    return _divergence(_REVERSE, hidden, head, teacher_hidden, teacher_head, temperatures, token_block, vocab_block)


def linear_js(
    hidden: Tensor, head: LinearHead, teacher_hidden: Tensor, teacher_head: LinearHead, *, temperature: float = 1.0,
    teacher_temperature: float | None = None, token_block: int = TOKEN_BLOCK, vocab_block: int = VOCAB_BLOCK,
) -> Tensor:  # fmt: skip
    r""":math:`\frac12\mathrm{KL}(s\|m) + \frac12\mathrm{KL}(t\|m)`, :math:`m = (s+t)/2`; arguments as ``linear_kl``."""
    temperatures = temperature, temperature if teacher_temperature is None else teacher_temperature
    return _divergence(_JS, hidden, head, teacher_hidden, teacher_head, temperatures, token_block, vocab_block)


def _divergence(
    kind: _Kind, hidden: Tensor, head: LinearHead, teacher_hidden: Tensor, teacher_head: LinearHead,
    temperatures: tuple[float, float], token_block: int, vocab_block: int,
) -> Tensor:  # fmt: skip
    weight, teacher_weight = head.weight, teacher_head.weight
    both = zip((head, teacher_head), temperatures, strict=True)
    laws = tuple(Law(h.scale, h.softcap, t) for h, t in both)
    check("linear_kl", hidden, weight, laws[0], token_block, vocab_block)
    check("linear_kl", teacher_hidden, teacher_weight, laws[1], token_block, vocab_block)
    shapes = [(len(hidden), len(weight)), (len(teacher_hidden), len(teacher_weight))]
    if shapes[0] != shapes[1]:
        raise refuse("linear_kl", "student and teacher", "over the same [N,V]", shapes, "align positions and ids")
    if hidden.shape[0] == 0:
        return hidden.float().sum(-1) + weight[:1].float().sum() * 0
    teacher = (teacher_hidden.detach(), teacher_weight.detach(), teacher_head.bias, laws[1])
    return _Divergence.apply(kind, hidden, weight, head.bias, laws[0], teacher, (token_block, vocab_block))


class _Kind(NamedTuple):
    """``value``: divergence, both logsumexps and what the gradient subtracts, all [R]. ``slope``: d value / d z_s."""

    value: Callable[[Tiles, Tiles, slice, tuple[Tensor, Tensor]], tuple[Tensor, ...]]
    slope: Callable[[Tensor, Tensor, Tensor], Tensor]


class _Divergence(torch.autograd.Function):
    """Backward forms the tiles again: nothing of width V is kept."""

    @staticmethod
    def forward(
        ctx: Any, kind: _Kind, hidden: Tensor, weight: Tensor, bias: Tensor | None, law: Law,
        teacher: tuple[Any, Any, Any, Any], blocks: tuple[int, int],
    ) -> Tensor:  # fmt: skip
        s, t = Tiles(hidden, weight, bias, law, *blocks), Tiles(*teacher, blocks[0], blocks[1])
        buffers = s.buffer(), t.buffer()
        parts = [kind.value(s, t, rows, buffers) for rows in s.rows()]
        out, lse_s, lse_t, mean = (torch.cat(p) for p in zip(*parts, strict=True))
        ctx.save_for_backward(hidden, weight, bias, lse_s, lse_t, mean)
        ctx.kind, ctx.law, ctx.teacher, ctx.blocks = kind, law, teacher, blocks
        return out.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, *_ = ctx.saved_tensors
        with torch.no_grad():
            grads = _gradients(ctx, grad)
        return None, *first_order(grads.cast(), (hidden, weight, bias)), None, None, None


def _gradients(ctx: Any, grad: Tensor) -> Gradients:
    hidden, weight, bias, lse_s, lse_t, mean = ctx.saved_tensors
    s, t = Tiles(hidden, weight, bias, ctx.law, *ctx.blocks), Tiles(*ctx.teacher, *ctx.blocks)
    grads = Gradients(s, ctx.needs_input_grad[1:4])
    buffers = s.buffer(), t.buffer()
    for columns in s.columns():
        for rows in s.rows():
            zs, zt = s.logits(rows, columns, buffers[0]), t.logits(rows, columns, buffers[1])
            ls = zs - lse_s[rows, None]
            dz = ctx.kind.slope(ls, zt.sub_(lse_t[rows, None]), mean[rows, None]).mul_(grad[rows, None])
            grads.add(rows, columns, s.flatten_(dz, zs))
    return grads


class _Online:
    """A running logsumexp of rows, and of a second sum under the same weights."""

    def __init__(self, like: Tensor, n: int) -> None:
        self.top = like.new_full((n,), torch.finfo(like.dtype).min)
        self.mass, self.sum = like.new_zeros(2, n).unbind()

    def add(self, z: Tensor, of: Tensor | None = None) -> None:
        """z [R, C] is destroyed, and so is ``of`` [R, C], whose mean under softmax(z) is wanted."""
        higher = torch.maximum(self.top, z.amax(-1))
        shrink = (self.top - higher).exp_()
        e = z.sub_(higher[:, None]).exp_()
        self.mass = self.mass * shrink + e.sum(-1)
        if of is not None:
            self.sum = self.sum * shrink + of.mul_(e).masked_fill_(e == 0, 0.0).sum(-1)
        self.top = higher

    def lse(self) -> Tensor:
        return self.top + self.mass.log()


def _cross(p: Tiles, q: Tiles, rows: slice, buffers: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """KL(p || q) and both logsumexps in one pass: the mean of z_p - z_q under p, less the difference of the two."""
    n = rows.stop - rows.start
    first, second = _Online(p.scaled, n), _Online(q.scaled, n)
    for columns in p.columns():
        zp, zq = p.logits(rows, columns, buffers[0]), q.logits(rows, columns, buffers[1])
        first.add(zp, zp - zq)
        second.add(zq)
    lse_p, lse_q = first.lse(), second.lse()
    return first.sum / first.mass - lse_p + lse_q, lse_p, lse_q


def _forward_value(s: Tiles, t: Tiles, rows: slice, buffers: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    kl, lse_t, lse_s = _cross(t, s, rows, buffers)
    return kl, lse_s, lse_t, kl


def _reverse_value(s: Tiles, t: Tiles, rows: slice, buffers: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    kl, lse_s, lse_t = _cross(s, t, rows, buffers)
    return kl, lse_s, lse_t, kl


def _js_value(s: Tiles, t: Tiles, rows: slice, buffers: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    n = rows.stop - rows.start
    ends = _Online(s.scaled, n), _Online(t.scaled, n)
    for columns in s.columns():
        ends[0].add(s.logits(rows, columns, buffers[0]))
        ends[1].add(t.logits(rows, columns, buffers[1]))
    lse_s, lse_t = ends[0].lse(), ends[1].lse()
    kl_s, kl_t = s.scaled.new_zeros(2, n).unbind()
    for columns in s.columns():
        ls = s.logits(rows, columns, buffers[0]).sub_(lse_s[:, None])
        lt = t.logits(rows, columns, buffers[1]).sub_(lse_t[:, None])
        ratio = _log_ratio(ls, lt)
        kl_s = kl_s + (F.logsigmoid(ratio).add_(_LN2) * ls.exp_()).sum(-1)
        kl_t = kl_t + (F.logsigmoid(ratio.neg_()).add_(_LN2) * lt.exp_()).sum(-1)
    return (kl_s + kl_t) / 2, lse_s, lse_t, kl_s


def _js_slope(ls: Tensor, lt: Tensor, mean: Tensor) -> Tensor:
    above = F.logsigmoid(_log_ratio(ls, lt)).add_(_LN2)  # log s - log m
    return above.sub_(mean).mul_(ls.exp_()).mul_(0.5)


def _log_ratio(ls: Tensor, lt: Tensor) -> Tensor:
    return (ls.clamp_min(-_FAR) - lt.clamp_min(-_FAR)).clamp_(-100.0, 100.0)


_FORWARD = _Kind(_forward_value, lambda ls, lt, _: ls.exp_().sub_(lt.exp_()))
_REVERSE = _Kind(_reverse_value, lambda ls, lt, kl: (ls - lt).sub_(kl).mul_(ls.exp()).masked_fill_(ls < -_FAR, 0.0))
_JS = _Kind(_js_value, _js_slope)
