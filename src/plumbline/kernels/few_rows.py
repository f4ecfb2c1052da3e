"""Linear layers over a handful of positions on a CPU, several times faster than the library's own product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDE = 8192  # rows of a weight (a head, mostly) from which the turned product wins for longer
FEW, MOST = 6, 12  # positions up to which it wins, for other weights and for wide ones


@contextmanager
def few_rows(model: nn.Module) -> Iterator[nn.Module]:
    r"""Compute :math:`x W^\top` as :math:`(W x^\top)^\top` inside, where few positions meet a CPU weight.

    MKL multiplies a matrix of 2 or 3 rows one row at a time, and one row on one core; turned round it reads the weight
    once, on all of them. A single row is doubled for that. The sums are the same up to rounding. Layers of other
    classes, dtypes and devices, and passes with gradients, are left alone.
    """
    first = next(model.parameters(), None)
    every = model.modules() if first is not None and first.device.type == "cpu" else ()
    turned = [m for m in every if type(m) is nn.Linear and _suits(m.weight)]
    for module in turned:
        module.forward = partial(_turned, module)  # type: ignore[method-assign]
    try:
        yield model
    finally:
        for module in turned:
            module.__dict__.pop("forward", None)  # gone already where two threads run one model


def _suits(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkl.is_available()


def _turned(module: nn.Linear, x: Tensor) -> Tensor:
    rows, wide = x.numel() // x.shape[-1], module.out_features >= WIDE
    if torch.is_grad_enabled() or rows < 1 or rows > (MOST if wide else FEW):
        return F.linear(x, module.weight, module.bias)
    flat = x.reshape(rows, -1)
    if rows == 1:
        flat = flat.repeat(2, 1)
    out = torch.mm(module.weight, flat.t()).t()[:rows]
    out = out if module.bias is None else out + module.bias
    return out.reshape(*x.shape[:-1], -1)
