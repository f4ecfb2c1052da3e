"""Direct Coverage Optimization: fine-tune for the chance that one of N samples is right, not for confidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, Paper, Probability, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.lab.digits import coverage, digits, network, train_on
from plumbline.lab.preferences import answers


@objective(
    paper=Paper(
        "Rethinking Fine-Tuning when Scaling Test-Time Compute: Limiting Confidence Improves Mathematical Reasoning",
        "Chen et al.",
        2025,
        arxiv="2502.07154",
    ),
    says="Weigh each answer's likelihood by how much it still helps the best of N samples; confident rows fade out.",
    differs=(
        "With solve_rate, skipped rows count in the mean as zeros; the official code draws rows until a batch is full.",
        "The paper's step-wise variant is this loss on rows of one proof step each, samples being its effective N.",
    ),
)
def direct_coverage_optimization(
    x: Scored, solve_rate: Tensor | None = None, step: int | None = None, *, samples: Count = 1,
    threshold: Probability = 0.1, unfiltered_steps: Annotated[int, Bound(ge=0)] = 20,
    reduce: Callable[[Scored], Tensor] = Scored.mean,
) -> Tensor:  # fmt: skip
    r"""Per-row DCO loss: the likelihood's gradient times the share F of it that :math:`\log` coverage asks for.

    .. math:: \ell = -F(p, N)\,\overline{\log\pi}(y), \qquad F(p, N) = \frac{N p (1-p)^{N-1}}{1 - (1-p)^N}

    :math:`p = \exp\sum_t \log\pi(y_t \mid y_{<t})` is the row's probability; F is made from it in float64 and carries
    no gradient. With ``reduce=Scored.total`` the gradient is that of :math:`-\log(1-(1-p)^N)`. F falls from 1 at
    p = 0 to 0 at p = 1; for N = 1 it is always 1, and the loss the negative log-likelihood.

    Args:
        x: the trained model, logps [B, T]; a row holds the whole answer.
        solve_rate: [B] in [0, 1], the share of sampled chains of thought that reach the right answer (the paper draws
            64); it takes the place of p, and rows at or above ``threshold`` are skipped.
        step: optimizer step. Before ``unfiltered_steps`` nothing is skipped and F is 1, where solve_rate is given.
        samples: N, the number of samples that will be drawn at test time.
        threshold, unfiltered_steps: concern solve_rate alone; values of the official code.
        reduce: log-probability of a row, [B] nats: the token mean of the official code, or ``Scored.total``.

    Returns:
        [B] nats.

    Raises:
        InputError: a hyper-parameter is out of bounds.
    """
    log_p = x.total().detach() if solve_rate is None else solve_rate.to(x.logps).log()
    share = _share(log_p, samples)
    if solve_rate is not None:
        first = step is not None and step < unfiltered_steps
        share = torch.ones_like(share) if first else torch.where(solve_rate < threshold, share, 0.0)
    note(answer_probability=log_p.exp(), coverage_share=share, saturated=(share < 0.1).float())
    return -share * reduce(x)


def _share(log_p: Tensor, n: int) -> Tensor:
    """F of log p [B], in log space; log p is kept within the range of float64, where F has reached its limits."""
    log_p_wide = log_p.double().clamp(-690.0, math.log1p(-1e-12))
    log_miss = torch.log1p(-log_p_wide.exp())  # log(1 - p)
    hit = -torch.expm1(n * log_miss)  # 1 - (1 - p)^n
    return (math.log(n) + log_p_wide + (n - 1) * log_miss - hit.log()).exp().to(log_p.dtype)


@claim(
    direct_coverage_optimization,
    "Trained on noisy labels, likelihood loses coverage at 16 samples as it grows confident; DCO at N = 16 keeps it.",
    cost="cpu:15s",
)
def keeps_coverage() -> Evidence:
    lost, gained, first_try = [], [], []
    for seed in range(3):
        data, late, single = digits(150, seed=seed, noise=0.25), {}, {}
        for n in (1, 16):
            model, loss = network(seed=seed), partial(direct_coverage_optimization, samples=n)
            early = coverage(train_on(model, data.x, data.y, loss, steps=50), data.test_x, data.test_y, 16)
            late[n] = coverage(train_on(model, data.x, data.y, loss, steps=1450), data.test_x, data.test_y, 16)
            single[n] = coverage(model, data.test_x, data.test_y, 1)
            if n == 1:
                lost.append(early - late[n])
        gained.append(late[16] - late[1])
        first_try.append(single[16] - single[1])
    told = {"coverage that likelihood lost": lost, "late coverage, DCO over it": gained, "one sample": first_try}
    return Evidence(min(gained) >= 0.08, told, control=min(lost) >= 0.08 and max(first_try) < 0)


@claim(
    direct_coverage_optimization,
    "At the optimum over several right answers q_k F(p_k) / p_k is the same for all; at likelihood's it is not.",
    cost="cpu:6s",
)
def balances_the_answers() -> Evidence:
    q = torch.arange(12, 0, -1, dtype=torch.float64).square()
    q = q / q.sum()

    def spread(n: int) -> float:
        """Of q F / p, F for 8 samples, relative to its mean, where training with ``samples=n`` ends."""
        table = torch.zeros(12, dtype=torch.float64, requires_grad=True)
        for _ in range(1500):
            loss = direct_coverage_optimization(answers(table), samples=n, reduce=Scored.total)
            (slope,) = torch.autograd.grad((q * loss).sum(), table)
            table = (table.detach() - 4.0 * slope).requires_grad_()
        p = table.detach().softmax(-1)
        level = q * _share(p.log(), 8) / p
        return float((level.max() - level.min()) / level.mean())

    found, likelihood = spread(8), spread(1)
    return Evidence(found < 1e-3, {"relative spread": found, "under likelihood": likelihood}, likelihood > 0.1)
