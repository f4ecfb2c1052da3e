"""Best-of-N and worst-of-N: exact win rates from two samples of rewards, and the shapes of reward that raise them."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.errors import refuse


def identity(quantiles: Tensor) -> Tensor:
    """The calibrated reward itself: the standard win rate."""
    return quantiles


def bon(quantiles: Tensor, *, t: float = 10.0) -> Tensor:
    r""":math:`e^{t(u-1)}`, for best-of-N: only answers near the top are worth anything. In (0, 1] whatever t > 0 is."""
    return torch.exp(_positive("bon", t) * (quantiles - 1))


def won(quantiles: Tensor, *, t: float = 10.0) -> Tensor:
    r""":math:`-e^{-tu}`, for worst-of-N (best-of-N jailbreaks): only the bottom must be left. In [-1, 0)."""
    return -torch.exp(-_positive("won", t) * quantiles)


def bon_win_rate(policy: Tensor, base: Tensor, n: int, weights: Tensor | None = None) -> float:
    r"""How often the best of n draws of a policy beats the best of n draws of its base; a tie is half a win.

    .. math:: W = \sum_v \left[F_\pi(v)^n - F_\pi(v^-)^n\right] \cdot
                  \tfrac12\left[F_b(v)^n + F_b(v^-)^n\right]

    with the distribution functions F of the samples: draws with replacement, counted exactly and not simulated.

    Args:
        policy: [M] rewards. weights: [M], their probabilities, equal when left out.
        base: [K] rewards, drawn with equal probability.
        n: draws on either side; 1 is the standard win rate.

    Raises:
        InputError: n is not a positive whole number, or a sample is empty.
    """
    if n < 1 or n != int(n):
        raise refuse("bon_win_rate", "n", "a whole number >= 1", n, "pass the N of best-of-N")
    if policy.numel() == 0 or base.numel() == 0:
        got = [policy.numel(), base.numel()]
        raise refuse("bon_win_rate", "policy and base", "at least one reward each", got, "sample first")
    p = torch.ones(len(policy), dtype=torch.float64) if weights is None else weights.double()
    values, where = policy.double().unique(return_inverse=True)
    mass = torch.zeros(len(values), dtype=torch.float64).index_add(0, where, p / p.sum())
    reached = mass.cumsum(0).clamp(max=1)
    best = (reached**n).diff(prepend=torch.zeros(1, dtype=torch.float64))
    ordered = base.double().sort().values
    upto = torch.searchsorted(ordered, values, right=True).double() / len(ordered)
    below = torch.searchsorted(ordered, values).double() / len(ordered)
    return float((best * (upto**n + below**n)).sum() / 2)


def won_win_rate(policy: Tensor, base: Tensor, n: int, weights: Tensor | None = None) -> float:
    """How often the worst of n draws of a policy beats the worst of n draws of its base; as :func:`bon_win_rate`."""
    return 1 - bon_win_rate(-policy, -base, n, weights)


def _positive(where: str, t: float) -> float:
    if not t > 0:
        raise refuse(where, "t", "a number > 0", t, "pass t=10; worst-of-N is another function")
    return t
