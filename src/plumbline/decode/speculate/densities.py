"""Log-ratios of a target's and a draft's densities: Gaussians, and denoising paths exactly or with aligned noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.core.errors import refuse


class Verdict(NamedTuple):
    """What a target says of a block of drafts.

    Attributes:
        log_ratio: ``(i, x [m, ...]) -> [m]``, log p_i(x) - log q_i(x) of candidates for place i of the block.
        sample: ``(i, m) -> [m, ...]``, draws from p_i; place n, after a block of n, must be there as well.
    """

    log_ratio: Callable[[int, Tensor], Tensor]
    sample: Callable[[int, int], Tensor]


def normal_logp(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density [...] of independent normals over the last axis of ``x`` [..., d], in float64."""
    z = (x.double() - mean.double()) / std.double()
    return (-0.5 * z * z - std.double().log() - 0.5 * math.log(2 * math.pi)).expand_as(z).sum(-1)


def gaussian(
    mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor, generator: torch.Generator | None = None
) -> Verdict:
    r"""Verdict of diagonal Gaussian heads: :math:`p_i = N(\mu^p_i, \sigma^p_i), q_i = N(\mu^q_i, \sigma^q_i)`.

    Args:
        mean_p, std_p: [n + 1, d] of the target, the place after the drafts last. mean_q, std_q: [n, d] of the draft.
    """
    if mean_q.shape[0] + 1 != mean_p.shape[0] or mean_q.shape[1:] != mean_p.shape[1:]:
        shapes = [list(mean_p.shape), list(mean_q.shape)]
        raise refuse("gaussian", "means", "[n + 1, d] of the target and [n, d] of the draft", shapes, "add a row to p")
    if not bool((std_p > 0).all() & (std_q > 0).all()):
        raise refuse("gaussian", "std", "above 0", "a standard deviation of 0 or less", "pass sigma, not its logarithm")

    def log_ratio(i: int, x: Tensor) -> Tensor:
        return normal_logp(x, mean_p[i], std_p[i]) - normal_logp(x, mean_q[i], std_q[i])

    def sample(i: int, m: int) -> Tensor:
        noise = torch.randn(m, *mean_p.shape[1:], generator=generator, dtype=mean_p.dtype, device=mean_p.device)
        return mean_p[i] + std_p[i] * noise

    return Verdict(log_ratio, sample)


Mean = Callable[[int, Tensor], Tensor]  # (step, x_t [m, d]) -> mean of x_{t-1} [m, d]


def denoise(start: Tensor, noise: Tensor, mean: Mean, std: Tensor) -> Tensor:
    r"""A denoising path [m, S + 1, d]: :math:`x_{s+1} = \mu_s(x_s) + \sigma_s \epsilon_s` from ``start`` [m, d].

    Args:
        noise: [m, S, d]. std: [S], one a step, in the order of the steps.
    """
    path = [start]
    for s in range(noise.shape[1]):
        path.append(mean(s, path[-1]) + std[s] * noise[:, s])
    return torch.stack(path, 1)


def path_log_ratio(path: Tensor, mean_p: Mean, std_p: Tensor, mean_q: Mean, std_q: Tensor) -> Tensor:
    r"""Exact log-ratio [m] of two denoising heads at whole paths [m, S + 1, d] with a common law of the start.

    .. math:: \sum_s \log N(x_{s+1}; \mu^p_s(x_s), \sigma^p_s) - \log N(x_{s+1}; \mu^q_s(x_s), \sigma^q_s)

    Both heads are asked at the same states. What is verified is the path: drafts and target samples must be paths,
    and the value is the last state. The law of the value is then the target's, whatever the draft.
    """
    steps = range(path.shape[1] - 1)
    each = [
        normal_logp(path[:, s + 1], mean_p(s, path[:, s]), std_p[s])
        - normal_logp(path[:, s + 1], mean_q(s, path[:, s]), std_q[s])
        for s in steps
    ]
    return torch.stack(each).sum(0)


def aligned_log_ratio(
    x: Tensor, path: Tensor, noise: Tensor, mean_p: Mean, std_p: Tensor, mean_q: Mean, std_q: Tensor
) -> Tensor:
    r"""The paper's log-ratio [m] of values x [m, d]: the target walks its own path under the draft's noise. LOSSY.

    .. math:: d \sum_{s<S-1} \log\frac{\sigma^q_s}{\sigma^p_s}
        + \log N(x; \mu^p_{S-1}(y_{S-1}), \sigma^p_{S-1}) - \log N(x; \mu^q_{S-1}(x_{S-1}), \sigma^q_{S-1})

    y is the target's path from the same start and noise: its exponents before the last step equal the draft's and
    cancel. Given start and noise the last step alone would be verified exactly; the sum over the earlier steps does
    not belong there, so the law is the target's only where their standard deviations are equal. Residuals are drawn
    at the last step, from ``aligned_last``; there may be none at all, so pass a small ``max_tries``.

    Args:
        path: [1, S + 1, d] of the draft. noise: [1, S, d] that it was made with.
    """
    last = noise.shape[1] - 1
    scale = path.shape[-1] * (std_q[:last].double().log() - std_p[:last].double().log()).sum()
    at_p = normal_logp(x, aligned_last(path, noise, mean_p, std_p), std_p[last])
    return scale + at_p - normal_logp(x, mean_q(last, path[:, last]), std_q[last])


def aligned_last(path: Tensor, noise: Tensor, mean: Mean, std: Tensor) -> Tensor:
    """Mean [1, d] of the last step after a walk under the same start and noise as ``path`` [1, S + 1, d]."""
    last = noise.shape[1] - 1
    return mean(last, denoise(path[:, 0], noise[:, :last], mean, std)[:, -1])
