"""Lagrange multipliers that learn beside a policy, and the search for the thresholds that they should hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.notes import note
from plumbline.kernels.ranks import everywhere

Squash = Callable[[Tensor], Tensor]


def dual_step(
    multipliers: Tensor, velocity: Tensor, returns: Tensor, thresholds: Tensor, *,
    squash: Squash | None = torch.sigmoid, lr: float = 0.1, momentum: float = 0.1,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    r"""One step of descent on :math:`\sum_i \mu(\lambda_i)\,(\bar R_i - \theta_i)`: a multiplier rises while its return
    is below the threshold.

    Args:
        multipliers, velocity: [k], :math:`\lambda` and the momentum's memory of its gradient.
        returns: [k] mean episode returns (not advantages), constants here. thresholds: [k].
        squash: as ``constrained_rlhf``; None for :math:`\lambda \ge 0`, which is kept by clamping.
        lr: 0.1 is the official config's; momentum: 0.1 as well.

    Returns:
        The new multipliers and velocity, each [k], without a gradient.
    """
    with torch.enable_grad():
        leaf = multipliers.detach().clone().requires_grad_()
        weights = leaf if squash is None else squash(leaf)
        (slope,) = torch.autograd.grad((weights * (returns.detach() - thresholds)).sum(), leaf)
    velocity = momentum * velocity + slope
    moved = leaf.detach() - lr * velocity
    return (moved.clamp(min=0) if squash is None else moved), velocity


@dataclass
class Multipliers:
    """The multipliers of one run; pass it to ``fit(keep=[...])`` so that checkpoints hold it.

    Attributes:
        thresholds: [k], the returns to be held.
        squash, lr, momentum: as :func:`dual_step`.
        values, velocity: [k] float64, the state; 0 where squashed (the official draw from N(0, 0.01) but for its
            noise), 1/2 where not.
    """

    thresholds: Tensor
    squash: Squash | None = torch.sigmoid
    lr: float = 0.1
    momentum: float = 0.1
    values: Tensor = field(init=False)
    velocity: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.thresholds = torch.as_tensor(self.thresholds, dtype=torch.float64)
        if self.thresholds.dim() != 1:
            got = tuple(self.thresholds.shape)
            raise refuse("Multipliers", "thresholds", "of shape [k]", got, "one number per reward")
        self.values = torch.full_like(self.thresholds, 0.5 if self.squash is None else 0.0)
        self.velocity = torch.zeros_like(self.thresholds)

    def update(self, returns: Tensor) -> None:
        """Take a step from the episode returns [B, k] of one rollout batch, of all processes together.

        Once per batch of rollouts, not once per minibatch of updates.
        """
        if returns.dim() != 2 or returns.shape[1] != len(self.thresholds):
            expected = f"of shape [B,{len(self.thresholds)}]"
            raise refuse("Multipliers.update", "returns", expected, tuple(returns.shape), "one row per episode")
        mean = everywhere(returns).double().mean(0).cpu()
        how: dict[str, Any] = {"squash": self.squash, "lr": self.lr, "momentum": self.momentum}
        self.values, self.velocity = dual_step(self.values, self.velocity, mean, self.thresholds, **how)
        note(**{f"multiplier_{i}": float(v) for i, v in enumerate(self.values)})
        note(**{f"return_less_threshold_{i}": float(v) for i, v in enumerate(mean - self.thresholds)})

    def state_dict(self) -> dict[str, list[float]]:
        """Numbers only, as JSON holds them."""
        return {"values": self.values.tolist(), "velocity": self.velocity.tolist()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        for name in ("values", "velocity"):
            kept = torch.tensor(state[name], dtype=torch.float64)
            if kept.shape != self.thresholds.shape:
                raise refuse("Multipliers", name, f"{len(self.thresholds)} numbers", len(kept), "same thresholds")
            setattr(self, name, kept)


def reached(returns: ArrayLike, thresholds: ArrayLike, *, within: float = 0.05) -> bool:
    """Whether every return is within a share ``within`` of its threshold: then a point of the search may be judged."""
    theta = np.asarray(thresholds, float)
    return bool((np.abs(np.asarray(returns, float) - theta) <= within * np.abs(theta)).all())


def search_thresholds(
    score: Callable[[np.ndarray], float], start: ArrayLike, *, tolerance: float = 0.01, most: int = 200,
    apart: float = 5e-3,
) -> tuple[np.ndarray, float, dict[tuple[float, ...], float]]:  # fmt: skip
    """The thresholds with the highest score, by Nelder-Mead (reflect 1, expand 2, contract and shrink 1/2).

    Args:
        score: thresholds [k] -> gold score once their run has them ``reached``. It goes on training, so that asking
            twice gives two answers: a point nearer than ``apart`` to one that was judged is not asked again.
        start: [k + 1, k], the first simplex: for instance points between where a return starts and where it ends.
        tolerance: stop when the scores of the simplex differ by no more. most: calls of ``score`` at most.

    Returns:
        The best thresholds [k], their score, and every point that was judged with its score.

    Raises:
        InputError: start is not [k + 1, k].
    """
    simplex = np.asarray(start, float)
    if simplex.ndim != 2 or len(simplex) != simplex.shape[1] + 1:
        raise refuse("search_thresholds", "start", "of shape [k+1,k]", simplex.shape, "one corner more than rewards")
    judged: dict[tuple[float, ...], float] = {}

    def loss(theta: Sequence[float]) -> float:
        near = next((seen for seen in judged if np.abs(np.subtract(seen, theta)).max() < apart), None)
        if near is None:
            if len(judged) >= most:
                return np.inf  # the search goes back to what it knows, and ends
            near = tuple(float(t) for t in theta)
            judged[near] = float(score(np.asarray(near)))
        return -judged[near]

    options = {"initial_simplex": simplex, "fatol": tolerance, "xatol": np.inf, "maxfev": 10 * most}
    minimize(loss, simplex[0], method="Nelder-Mead", options=options)
    best = max(judged, key=lambda theta: judged[theta])
    return np.asarray(best), judged[best], judged
