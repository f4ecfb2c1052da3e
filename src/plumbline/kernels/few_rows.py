"""Linear layers over a handful of positions on a CPU, several times faster than the library's own product."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MKL = torch.backends.mkl.is_available()
BIG = 1 << 17  # entries of a weight from which reading it costs more than the few calls more
WIDE = 8192  # rows of a weight (a head, mostly) from which the turned product wins for longer
FEW, MOST = 6, 12  # positions up to which it wins, for other weights and for wide ones

_found: weakref.WeakKeyDictionary[nn.Module, list[nn.Linear]] = weakref.WeakKeyDictionary()


@contextmanager
def few_rows(model: nn.Module) -> Iterator[nn.Module]:
    r"""Compute :math:`x W^\top` as :math:`(W x^\top)^\top` inside, where few positions meet a large CPU weight.

    MKL multiplies a matrix of 2 or 3 rows one row at a time, and one row on one core; turned round it reads the weight
    once, on all of them. A single row is doubled for that. The sums are the same up to rounding. Layers of other
    classes, dtypes and devices, and passes with gradients, are left alone.
    """
    turned = _found.get(model)
    if turned is None:
        turned = _found[model] = [m for m in model.modules() if type(m) is nn.Linear and m.weight.numel() >= BIG]
    turned = [m for m in turned if m.weight.is_cpu and m.weight.dtype == torch.float32] if _MKL else []
    for module in turned:
        module.__dict__["forward"] = partial(_turned, module)
    try:
        yield model
    finally:
        for module in turned:
            module.__dict__.pop("forward", None)  # gone already where two threads run one model


def _turned(module: nn.Linear, x: Tensor) -> Tensor:
    rows = x.numel() // x.shape[-1]
    if not 0 < rows <= (MOST if module.out_features >= WIDE else FEW) or torch.is_grad_enabled():
        return F.linear(x, module.weight, module.bias)
    flat = x.reshape(rows, -1)
    if rows == 1:
        flat = torch.cat((flat, flat))
    out = torch.mm(module.weight, flat.t()).t()[:rows]
    out = out if module.bias is None else out + module.bias
    return out.reshape(*x.shape[:-1], -1)
