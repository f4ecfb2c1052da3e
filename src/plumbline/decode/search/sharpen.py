"""Distributions sharpened towards their own likeliest answers: by best-of-n, by tilting, and as training pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.errors import refuse
from plumbline.decode.samples import Floats, Samples
from plumbline.decode.search._best_of_n import best_of_n

_SAME = 1e-12  # relative: probabilities that differ by less tie


@dataclass(frozen=True, eq=False)
class Sharpening:
    """What sharpening makes of the distributions it was given.

    Attributes:
        coverage: C, the mean of 1 / pi(Y*). needed: [X] fewest draws that find a mode with probability 1 - delta.
        best_of_n, tilted: the sharpened distributions [X, Y].
        mode_mass: pi(Y*), and that of both results, [X] each.
        sharpened: whether pi and either result are (eps, delta)-sharpened.
    """

    coverage: float
    needed: np.ndarray
    best_of_n: Floats
    tilted: Floats
    mode_mass: dict[str, Floats]
    sharpened: dict[str, bool]


def distribution(where: str, pi: ArrayLike, name: str = "pi") -> Floats:
    """``pi`` [..., Y] as float64, refused unless every row is a distribution."""
    p = np.asarray(pi, np.float64)
    if p.ndim < 1 or p.shape[-1] < 1 or not np.isfinite(p).all() or (p < 0).any():
        raise refuse(where, name, "probabilities [..., Y]", pi, "pass one row of probabilities a prompt")
    if not np.allclose(p.sum(-1), 1, atol=1e-6):
        raise refuse(where, name, "rows that add up to 1", p.sum(-1).tolist(), "normalise each row first")
    return p / p.sum(-1, keepdims=True)


def modes(pi: ArrayLike) -> np.ndarray:
    r""":math:`Y^*(x) = \arg\max_y \pi(y \mid x)` as a mask, [..., Y] bool; several where they tie."""
    p = np.asarray(pi, np.float64)
    return p >= p.max(-1, keepdims=True) * (1 - _SAME)


def best_of_n_distribution(pi: ArrayLike, n: int, reward: ArrayLike | None = None) -> Floats:
    r"""The distribution of the best of n draws.

    .. math:: \pi_n(y) = \frac{\pi(y)}{\pi(G_y)} \bigl[F(r_y)^n - F(r_y^-)^n\bigr],
        \qquad F(r) = \sum_{y' : r(y') \le r} \pi(y')

    with :math:`G_y` the answers of the same reward, which share their chance in proportion to pi.

    Args:
        pi: [..., Y] probabilities. n: draws, at least 1.
        reward: [..., Y], or [Y] for all rows; pi itself when left out, whose mode then has 1 - (1 - pi(Y*))^n.

    Returns:
        [..., Y], exact for any n: small differences are not lost.
    """
    p = distribution("best_of_n_distribution", pi)
    r = p if reward is None else np.broadcast_to(np.asarray(reward, np.float64), p.shape)
    out = np.empty_like(p)
    for i in np.ndindex(p.shape[:-1]):
        out[i] = _best_of_n_row(p[i], r[i], n)
    return out


def _best_of_n_row(p: Floats, r: Floats, n: int) -> Floats:
    order = np.argsort(-r, kind="stable")
    ranked = r[order]
    # a new level where the reward falls by more than rounding, best level first
    level = np.zeros(len(r), int)
    level[order] = np.append(0, np.cumsum(ranked[:-1] - ranked[1:] > _SAME * np.abs(ranked[:-1])))
    mass = np.bincount(level, p)
    above = np.append(0.0, np.cumsum(mass)).clip(max=1.0)  # mass above each level: 1 - F
    with np.errstate(divide="ignore", invalid="ignore"):
        reach, under = (n * np.log1p(-above[:-1]), n * np.log1p(-above[1:]))  # logs of F^n and of F-^n
        won = np.where(np.isneginf(reach), 0.0, -np.exp(reach) * np.expm1(under - reach))
        won[-1] = np.exp(reach[-1])  # nothing lies below the last level
        return np.where(p > 0, won[level] * p / mass[level], 0.0)


def tilted(pi: ArrayLike, beta: float) -> Floats:
    r"""What maximises :math:`E_{\pi'}[\log \pi] - \beta\,KL(\pi' \| \pi)`: :math:`\pi^{1 + 1/\beta}` normalised.

    [..., Y] -> [..., Y]. Whole answers are tilted: tokens at temperature 1 / (1 + 1/beta)
    are another distribution.
    """
    p = distribution("tilted", pi)
    with np.errstate(divide="ignore"):
        z = (1 + 1 / beta) * (np.log(p) - np.log(p.max(-1, keepdims=True)))
    w = np.exp(z)
    return w / w.sum(-1, keepdims=True)


def coverage(pi: ArrayLike, weights: ArrayLike | None = None) -> float:
    r""":math:`C = E_x[1 / \pi(Y^*(x) \mid x)]` of pi [X, Y] under weights [X] (uniform when left out)."""
    p = np.atleast_2d(distribution("coverage", pi))
    mass = np.where(modes(p), p, 0).sum(-1)
    return float(np.average(1 / mass, weights=None if weights is None else np.asarray(weights, np.float64)))


def samples_needed(pi: ArrayLike, delta: float) -> np.ndarray:
    r"""Fewest n with :math:`1 - (1 - \pi(Y^*))^n \ge 1 - \delta`, [...] int64; at most C log(1/delta), rounded up."""
    p = distribution("samples_needed", pi)
    mass = np.where(modes(p), p, 0).sum(-1)
    with np.errstate(divide="ignore"):
        return np.maximum(1, np.ceil(math.log(delta) / np.log1p(-mass) - 1e-12)).astype(np.int64)


def sharpened(
    new: ArrayLike, pi: ArrayLike, *, eps: float, delta: float, weights: ArrayLike | None = None
) -> bool:  # fmt: skip
    r"""Whether ``new`` is (eps, delta)-sharpened: :math:`P_x[\pi'(Y^*(x) \mid x) \ge 1 - \delta] \ge 1 - \epsilon`.

    Args:
        new, pi: [X, Y]; the modes Y* are pi's. weights: [X], uniform when left out.
    """
    p, q = (np.atleast_2d(distribution("sharpened", x, name)) for x, name in ((pi, "pi"), (new, "new")))
    if p.shape != q.shape:
        raise refuse("sharpened", "new", f"of pi's shape {p.shape}", q.shape, "list the same answers in both")
    sure = np.where(modes(p), q, 0).sum(-1) >= 1 - delta - _SAME
    return (
        float(np.average(sure, weights=None if weights is None else np.asarray(weights, np.float64))) >= 1 - eps - _SAME
    )


def sft_pairs(samples: Sequence[Samples], reward: Callable | None = None) -> list[dict[str, str]]:
    """Training rows of SFT-sharpening, ``{"prompt", "completion"}``: each prompt with the best of its n samples.

    ``reward`` as for ``best_of_n``; left out, the samples' own rewards are not read: the self-reward is ``logps``.
    """
    rows = []
    for one in samples:
        chosen = best_of_n(replace(one, rewards=None) if reward is None else one, reward=reward)
        rows.append({"prompt": one.prompt, "completion": one.texts[chosen.index or 0]})
    return rows
