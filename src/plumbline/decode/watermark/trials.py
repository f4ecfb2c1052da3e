"""Small exactly understood cases for the watermarks: text without a model, and averages over keys without sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbline.decode.watermark.detection import Detection
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator

VOCAB = 500


def write(
    rule: Rule | None, rows: int, length: int, *, draw: int = 0, prompts: int | None = None, spread: float = 2.0
) -> Tensor:
    """Ids [rows, length] sampled, through the rule, from independent normal logits times ``spread``.

    Rows of one prompt share first token and logits; ``prompts`` divides ``rows``, default as many. ``draw`` numbers the
    sampler's randomness, and nothing else.
    """
    g, chance, prompts = generator(0, "logits"), generator(draw, "draw"), prompts or rows
    ids = torch.randint(VOCAB, (prompts, 1), generator=g).repeat_interleave(rows // prompts, 0)
    for _ in range(length - 1):
        logits = spread * torch.randn(prompts, VOCAB, generator=g).repeat_interleave(rows // prompts, 0)
        marked = logits if rule is None else rule(ids, logits)
        ids = torch.cat([ids, torch.multinomial(marked.softmax(-1), 1, generator=chance)], 1)
    return ids


def unmarked(rows: int, length: int, kinds: int = 12) -> Tensor:
    """Ids [rows, length] in which pairs repeat; each row has ``kinds`` tokens of its own, so rows are independent."""
    ids = torch.randint(kinds, (rows, length), generator=generator(0, "unmarked"))
    return ids + kinds * torch.arange(rows)[:, None]


def z_scores(ids: Tensor, **settings: Any) -> NDArray[np.float64]:
    from plumbline.decode.watermark import detect_kgw

    found: Detection = detect_kgw(ids, vocab=VOCAB, **settings)
    return found.z


@dataclass
class Given:
    """A scheme whose numbers [B, V] are written down: every key at once. Calling it, as a factory, returns itself."""

    table: Tensor
    window: int = 1

    def __call__(self, **_: Any) -> Given:
        return self

    def uniforms(self, contexts: Tensor, vocab: int) -> Tensor:
        return self.table

    def greens(self, contexts: Tensor, logits: Tensor, gamma: float) -> Tensor:
        return self.table < gamma


def apply(method: Callable[..., Rule], p: Tensor, table: Tensor, **settings: Any) -> Tensor:
    """What the method makes of the distribution p [V] under each row of numbers [N, V]: probabilities [N, V]."""
    rule, n = method(scheme=Given(table), **settings), len(table)
    return rule(torch.zeros(n, 1, dtype=torch.int64), p.log().expand(n, -1)).softmax(-1)


def distance(p: Tensor, q: Tensor) -> float:
    """Total variation between two distributions [V]."""
    return float((p - q).abs().sum() / 2)


def average_over_lists(method: Callable[..., Rule], p: Tensor, gamma: float = 0.25, **settings: Any) -> Tensor:
    """The output distribution [V] over all 2^V green lists, each token green with odds gamma."""
    lists = torch.tensor(list(product((True, False), repeat=len(p))))
    odds = torch.where(lists, gamma, 1 - gamma).double().prod(-1)
    table = torch.where(lists, gamma / 2, (1 + gamma) / 2).double()
    return odds @ apply(method, p, table, gamma=gamma, **settings).double()


def _nodes(n: int, power: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on (0, 1) in s, for r = s^power, which smooths r^a at 0."""
    x, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(n))
    s = (x + 1) / 2
    return s**power, w / 2 * power * s ** (power - 1)


def average_over_numbers(method: Callable[..., Rule], p: Tensor, n: int = 200, **settings: Any) -> Tensor:
    """The output distribution [2] over r uniform on the unit square, for rules that are smooth in r; V = 2."""
    r, w = _nodes(n, 6)
    table = torch.cartesian_prod(r, r)
    return torch.outer(w, w).flatten() @ apply(method, p, table, **settings).double()


def picks_over_keys(method: Callable[..., Rule], p: Tensor, n: int = 400, **settings: Any) -> Tensor:
    r"""P(the rule picks v) [V] over r uniform on the unit cube, for rules that put all weight on one token.

    .. math:: P(v) = \int_0^1 \prod_{u \ne v} t_u(r_v)\, dr_v

    where t_u is the r_u below which v still wins against u, found by bisection of the rule itself.
    """
    r, w = _nodes(n, 8)
    found = torch.zeros_like(p)
    for v in range(len(p)):
        volume = torch.ones_like(r)
        for u in range(len(p)):
            if u != v:
                volume = volume * _threshold(method, p, v, u, r, settings)
        found[v] = (w * volume).sum()
    return found


def _threshold(method: Callable[..., Rule], p: Tensor, v: int, u: int, r: Tensor, settings: dict[str, Any]) -> Tensor:
    """[n]: the largest r_u at which v is still picked, when v has r [n] and all others next to nothing."""
    low, high = torch.zeros_like(r), torch.ones_like(r)
    for _ in range(60):
        middle = (low + high) / 2
        table = torch.full((len(r), len(p)), 2.0**-1000, dtype=torch.float64)
        table[:, v], table[:, u] = r, middle
        wins = apply(method, p, table, **settings)[:, v] > 0.5
        low, high = torch.where(wins, middle, low), torch.where(wins, high, middle)
    return low
