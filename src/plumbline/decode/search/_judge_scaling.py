"""How the error falls, and rises again, with the number of answers that a judge chooses from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plumbline.core.declare import Evidence, NonNegative, Paper, Positive, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.search import judge
from plumbline.decode.search.judge import JudgeScaling


@function(
    paper=Paper(
        "Demystifying LLM-as-a-Judge: Analytically Tractable Model for Inference-Time Scaling",
        "Halder and Pehlevan",
        2025,
        arxiv="2512.19905",
    ),
    says="Predict the error of the answer that a judge picks among k, in a model that can be solved.",
    differs=(
        "Written from the paper's model with its own integrals, which need no sampling at any k and temperature.",
        "alpha is n/d, training rows per dimension; the paper's is d/n.",
        "Isotropic inputs, where the paper allows any covariance.",
    ),
)
def judge_scaling(
    k: Sequence[float] = (1, 2, 4, 8, 16, 32, 64), temperature: Sequence[float] = (0.0,), *, alpha: Positive = 1.5,
    s0: Positive = 0.7, g: Positive = 1.0, tau2: Positive = 1.0, c: float = 0.0, v: NonNegative = 0.0,
    predictive_noise: bool = True,
) -> JudgeScaling:  # fmt: skip
    r"""Expected squared error of Bayesian linear regression whose k predictions are chosen from by a judge.

    Teacher :math:`t = w_T \cdot x/\sqrt d`, labels t + N(0, s0^2), prior N(0, g^2) on weights, n = alpha d rows;
    predictions :math:`y_i \sim N(m(x), s^2)`; the judge knows :math:`r = w_R \cdot x/\sqrt d`:

    .. math:: P(i) \propto e^{-(y_i - r)^2/T}, \qquad \mathrm{error} = E[(y_i - t)^2]

    With :math:`\lambda = s_0^2/g^2` and M, M2 the limits of the resolvent's traces, in high dimension
    :math:`E(m-t)^2 = \lambda^2 \tau^2 M_2 + s_0^2 (M - \lambda M_2)`, :math:`E(m-t)(r-t) = -\lambda M c`,
    :math:`E(r-t)^2 = v` and :math:`s^2 = s_0^2 M + s_0^2`.

    Args:
        k: [K] how many predictions; inf is the limit. temperature: [T] of the judge; 0 takes the best.
        alpha, s0, g: rows per dimension, label noise, prior width. tau2: |w_T|^2/d.
        c, v: (w_R - w_T).w_T/d and |w_R - w_T|^2/d, the judge's error; w_R = (1 + e) w_T is c = e tau2, v = e^2 tau2.
        predictive_noise: predictions include the label noise (last term of s^2), as in the paper.

    Returns:
        A ``JudgeScaling`` with error [K, T], the best k and temperature of the grid, and the 1/k^2 coefficient.

    Raises:
        InputError: c^2 > tau2 v, which no judge has; k below 1, a negative temperature.
    """
    counts, temperatures = judge.grid("k", k, 1), judge.grid("temperature", temperature, 0)
    if c * c > tau2 * v * (1 + 1e-9):
        raise refuse("judge_scaling", "c", f"at most sqrt(tau2 v) = {(tau2 * v) ** 0.5:.4g} in size", c, "raise v")
    at = judge.moments(alpha=alpha, s0=s0, g=g, tau2=tau2, c=c, v=v, predictive_noise=predictive_noise)
    error = np.array([[judge.error(n, t, at) for t in temperatures] for n in counts])
    best = counts[error.argmin(0)], temperatures[error.argmin(1)]
    return JudgeScaling(counts, temperatures, error, *best, at, judge.coefficient(at) if v == 0 else None)


@claim(
    judge_scaling,
    "With the teacher as judge the error keeps falling, as 1/k^2; a judge that is far off has a finite best k, and at "
    "a given k a best temperature above 0.",
    cost="cpu:10s",
)
def a_wrong_judge_has_a_best_k() -> Evidence:
    ks, warm = [1, 2, 4, 8, 16, 64], [0.0, 0.1, 1.0]
    true, wrong = (judge_scaling(ks, v=v).error[:, 0] for v in (0.0, 0.6))
    by_warmth = {v: judge_scaling([64], warm, v=v).error[0] for v in (0.0, 0.6)}
    finite, spread = judge.simulate(8, 0.0, v=0.6)
    measured = {f"teacher_{n}": e for n, e in zip(ks, true, strict=True)}
    measured |= {f"wrong_judge_{n}": e for n, e in zip(ks, wrong, strict=True)}
    measured |= {f"wrong_judge_64_at_T_{t:g}": e for t, e in zip(warm, by_warmth[0.6], strict=True)}
    interior = bool(0 < wrong.argmin() < len(ks) - 1 and by_warmth[0.6].argmin() == 1)
    return Evidence(
        holds=interior and bool((np.diff(true) < 0).all()) and bool(abs(finite - wrong[3]) < 4 * spread),
        measured={**measured, "simulated_wrong_judge_8": finite},
        control=true.argmin() == len(ks) - 1 and by_warmth[0.0].argmin() == 0,  # a faithful judge has neither
    )
