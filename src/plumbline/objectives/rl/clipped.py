"""The clipped policy objective that GRPO and its relatives share: ratio, clip, and what is done with masked tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note

_FURTHEST = 20.0  # of a log-ratio before exp: float32 stays finite, and no clip bound is anywhere near


def log_ratio(method: str, x: Scored, x_old: Scored | None) -> Tensor:
    r""":math:`\log\pi_\theta - \log\pi_{old}` [B,T] with the gradient of the first, 0 where masked.

    ``x_old`` None is strictly on-policy: the value is 0, the gradient that of log pi.
    """
    if x_old is None:
        return x.logps - x.logps.detach()
    if x_old.logps.shape != x.logps.shape:
        got = (tuple(x_old.logps.shape), tuple(x.logps.shape))
        raise refuse(method, "x_old", "of the shape of x", got, "score the same rollouts with both policies")
    return torch.where(x.mask, x.logps - x_old.logps.detach(), 0.0)


def ratio(log_ratio: Tensor) -> Tensor:
    """exp of a log-ratio held within 20 of 0; beyond that the value and the gradient stop."""
    return log_ratio.clamp(-_FURTHEST, _FURTHEST).exp()


def over_tokens(method: str, argument: str, given: Tensor, x: Scored) -> Tensor:
    """[B], [B,1] or [B,T] as detached float32 (or wider) that broadcasts over [B,T]; any other shape is refused."""
    rows, tokens = x.logps.shape
    if tuple(given.shape) not in {(rows,), (rows, 1), (rows, tokens)}:
        expected = f"of shape [{rows}] or [{rows},{tokens}]"
        raise refuse(method, argument, expected, tuple(given.shape), "give one number a row, or one a scored position")
    wide = given.detach().to(torch.promote_types(given.dtype, x.logps.dtype))
    return wide[:, None] if wide.dim() == 1 else wide


def clipped(
    method: str, x: Scored, log_ratio: Tensor, advantages: Tensor, weights: Tensor | None, *, low: float, high: float,
    dual_clip: float | None, cap: float | None,
) -> Tensor:  # fmt: skip
    r"""Per-token policy loss, the negative of PPO's clipped surrogate.

    .. math:: m = \min(\min(\rho, \mathrm{cap}) A,\ \mathrm{clip}(\rho, 1-\mathrm{low}, 1+\mathrm{high}) A),\qquad
              \ell = -w \cdot \begin{cases}\max(m, \mathrm{dual} \cdot A) & A < 0 \\ m & \text{else}\end{cases}

    Args:
        log_ratio: [B,T], log rho; the only thing here that carries gradient.
        advantages: A, [B] or [B,T]. weights: w, [B], [B,1] or [B,T], or None for 1. Both are detached.

    Returns:
        [B,T], 0 where masked. Notes ``clip_low`` and ``clip_high`` (shares of the scored tokens whose gradient the clip
        took away) and ``ratio``.
    """
    a, rho = over_tokens(method, "advantages", advantages, x), ratio(log_ratio)
    free = rho if cap is None else rho.clamp(max=cap)
    surrogate = torch.minimum(free * a, rho.clamp(1 - low, 1 + high) * a)
    if dual_clip is not None:
        surrogate = torch.where(a < 0, torch.maximum(surrogate, dual_clip * a), surrogate)
    note(
        clip_low=token_mean(x, ((rho < 1 - low) & (a < 0)).float()),
        clip_high=token_mean(x, ((rho > 1 + high) & (a > 0)).float()),
        ratio=token_mean(x, rho.detach()),
    )
    if weights is not None:
        surrogate = surrogate * over_tokens(method, "weights", weights, x)
    return torch.where(x.mask, -surrogate, 0.0)


def token_mean(x: Scored, values: Tensor) -> Tensor:
    """Mean over the scored tokens of the batch, a scalar; 0 where there is none."""
    return torch.where(x.mask, values, 0.0).sum() / x.mask.sum().clamp(min=1)


def row_mean(x: Scored, values: Tensor) -> Tensor:
    """[B,T] that is 0 where masked -> the mean over each row's scored tokens, [B]."""
    return values.sum(-1) / x.lengths()
