"""Tiles of a linear head's logits: formed, differentiated and dropped, so that no ``[N, V]`` is ever held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import refuse

KEEP_BYTES = 3 << 27  # of logits kept from forward to backward; the rest is formed again
TOKEN_BLOCK, VOCAB_BLOCK = 1024, 4096  # 16 MB of float32: inside the last-level cache of most processors


@dataclass(frozen=True)
class Law:
    r"""What turns :math:`a = h W^\top + b` into logits: :math:`z = c\tanh(s a / c)/\tau`, or :math:`s a/\tau`."""

    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0

    @property
    def inner(self) -> float:
        """What multiplies h and b before the product."""
        return self.scale / (self.softcap or self.temperature)

    @property
    def slope(self) -> float:
        """dz/da without the soft cap's own factor."""
        return self.scale / self.temperature


class Tiles:
    """Hidden states [N,D] and a head [V,D] as logits, a tile at a time, in float32 or wider."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, law: Law, token_block: int, vocab_block: int
    ) -> None:
        self.dtype = torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)
        self.given = hidden.dtype
        self.hidden, self.weight, self.bias, self.law = hidden.to(self.dtype), weight, bias, law
        self.scaled = self.hidden if law.inner == 1.0 else self.hidden * law.inner
        self.n, self.vocab = hidden.shape[0], weight.shape[0]
        self.token_block, self.vocab_block = min(token_block, max(1, self.n)), min(vocab_block, self.vocab)

    def buffer(self) -> Tensor:
        """Room for one tile; reused for every one."""
        return torch.empty(self.token_block * self.vocab_block, dtype=self.dtype, device=self.hidden.device)

    def rows(self) -> Iterator[slice]:
        return (slice(i, min(i + self.token_block, self.n)) for i in range(0, self.n, self.token_block))

    def columns(self) -> Iterator[slice]:
        return (slice(v, min(v + self.vocab_block, self.vocab)) for v in range(0, self.vocab, self.vocab_block))

    def shaped(self, buffer: Tensor, rows: slice, columns: slice) -> Tensor:
        """The buffer as a contiguous [rows, columns]."""
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        return buffer[: shape[0] * shape[1]].view(shape)

    def logits(self, rows: slice, columns: slice, buffer: Tensor) -> Tensor:
        """z [rows, columns], written into ``buffer``."""
        out = self.shaped(buffer, rows, columns)
        torch.mm(self.scaled[rows], self.weight[columns].to(self.dtype).T, out=out)
        if self.bias is not None:
            out.add_(self.bias[columns].to(self.dtype), alpha=self.law.inner)
        if self.law.softcap is not None:
            out.tanh_().mul_(self.law.softcap / self.law.temperature)
        return out

    def flatten_(self, grad: Tensor, z: Tensor) -> Tensor:
        """Multiply d loss/dz by the soft cap's slope 1 - tanh^2, in place; ``z`` is destroyed."""
        if self.law.softcap is not None:
            z.mul_(self.law.temperature / self.law.softcap).square_()
            grad.addcmul_(grad, z, value=-1)
        return grad


class Gradients:
    """Sums of d loss/dz tiles into the gradients of hidden, weight and bias, in the tiles' precision."""

    def __init__(self, tiles: Tiles, wanted: tuple[bool, bool, bool]) -> None:
        self.tiles = tiles
        self.dtype = tiles.given
        self.hidden = torch.zeros_like(tiles.hidden) if wanted[0] else None
        self.weight = torch.empty_like(tiles.weight) if wanted[1] else None
        self.bias = torch.empty_like(tiles.bias) if wanted[2] and tiles.bias is not None else None
        self._block = self._bias = torch.empty(0)

    def cast(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of hidden, weight and bias in their own dtypes; None where not wanted."""
        hidden = None if self.hidden is None else self.hidden.to(self.dtype)
        return hidden, self.weight, self.bias

    def add(self, rows: slice, columns: slice, grad: Tensor) -> None:
        """Columns in the outer loop, rows in the inner: each block of the head is summed in full, then cast once."""
        tiles, slope = self.tiles, self.tiles.law.slope
        first, last = rows.start == 0, rows.stop == tiles.n
        if self.hidden is not None:
            self.hidden[rows].addmm_(grad, tiles.weight[columns].to(tiles.dtype), alpha=slope)
        if self.weight is not None:
            same = self.weight.dtype == tiles.dtype
            if first:
                shape = self.weight[columns].shape
                self._block = self.weight[columns] if same else grad.new_empty(shape)
            self._block.addmm_(grad.T, tiles.hidden[rows], beta=0 if first else 1, alpha=slope)
            if last and not same:
                self.weight[columns] = self._block
        if self.bias is not None:
            total = grad.sum(0).mul_(slope)
            self._bias = total if first else self._bias.add_(total)
            if last:
                self.bias[columns] = self._bias


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, *inputs: Tensor) -> Tensor:
        return grad.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("a second derivative through a blockwise kernel is not available; use the dense formula")


def first_order(grads: Sequence[Tensor | None], inputs: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """The gradients, joined to ``inputs`` under ``create_graph=True``: a second derivative raises, not vanishes."""
    if not torch.is_grad_enabled():
        return tuple(grads)
    tensors = [x for x in inputs if x is not None]
    return tuple(None if g is None else _FirstOrder.apply(g, *tensors) for g in grads)


def check(where: str, hidden: Tensor, weight: Tensor, law: Law, token_block: int, vocab_block: int) -> None:
    """Refuse shapes and hyper-parameters that no head has."""
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        shapes = [tuple(hidden.shape), tuple(weight.shape)]
        raise refuse(where, "hidden and weight", "of shapes [N,D] and [V,D]", shapes, "flatten the positions")
    positive: dict[str, Any] = {"temperature": law.temperature, "token_block": token_block, "vocab_block": vocab_block}
    if law.softcap is not None:
        positive["softcap"] = law.softcap
    for name, value in positive.items():
        if not value > 0:
            raise refuse(where, name, "> 0", value, "pass a positive number")


def check_ids(where: str, ids: Tensor, shape: tuple[int, ...], vocab: int) -> None:
    """Refuse ids of another shape or outside [0, V)."""
    if tuple(ids.shape[: len(shape)]) != shape:
        raise refuse(where, "labels", f"of shape {shape}", tuple(ids.shape), "give one label per position")
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < vocab:
        got = [int(ids.min()), int(ids.max())]
        raise refuse(where, "labels", f"within [0, {vocab})", got, "drop ignored positions (-100) with the mask first")
