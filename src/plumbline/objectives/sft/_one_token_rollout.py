"""One-Token Rollout: every supervised token as a one-step rollout that is rewarded for drawing the label."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, Paper, Positive, claim, objective
from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.kernels.seeds import generator as seeded
from plumbline.lab.digits import accuracy, digits, network, train_on


@objective(
    paper=Paper(
        "One-Token Rollout: Guiding Supervised Fine-Tuning of LLMs with Policy Gradient",
        "Ming et al.",
        2025,
        arxiv="2509.26313",
    ),
    says="Draw candidates for each token from the model itself and reward those that are the label.",
    differs=(
        "samples=None is the estimator's expectation at temperature 1, which the paper does not use: no noise.",
        "The defaults of samples, temperature and beta are from memory of the paper and were not verified.",
    ),
)
def one_token_rollout(
    x: Scored, *, samples: Count | None = 256, temperature: Positive | None = None,
    beta: Annotated[float, Bound(lt=1)] = -0.1, generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    r"""Per-token policy-gradient surrogate; of its value only the gradient means anything.

    .. math:: \ell_t = -\frac{1}{K} \sum_{i=1}^K R(a_i) \log\pi_\theta(a_i \mid y_{<t}), \qquad
              a_i \sim \pi_\theta^{\kappa}, \quad R(a) = 1 \text{ if } a = y_t \text{ else } \beta

    Draws carry no gradient. At temperature 1 the :math:`\beta` terms cancel in expectation and the gradient is
    :math:`-(1-\beta)\,\pi(y_t)\nabla\log\pi(y_t)`: likelihood weighted by the label's own probability, which
    ``samples=None`` computes as it is. At another temperature a bias of order :math:`\beta` stays. A label that is
    never drawn is not learned, and where labels are random the loss seeks their mode: watch ``nll`` in the log, not it.

    Args:
        x: the trained model on its own head or logits, logps [B, T].
        samples: K draws a token, [B, T, K] in memory; None for the exact expectation.
        temperature: kappa of the draws; None is 1.3 for draws, and 1 for the expectation, which has no other.
        beta: reward of a token that is not the label.

    Returns:
        [B, T], 0 where masked.

    Raises:
        InputError: ``samples=None`` with a temperature other than 1; log-probabilities without their model or logits.
    """
    if samples is None:
        if temperature not in (None, 1.0):
            raise refuse("one_token_rollout", "temperature", "1 or None where samples=None", temperature,
                         "leave it out, or draw samples=256")  # fmt: skip
        return -(1 - beta) * torch.where(x.mask, x.logps.detach().exp(), 0.0) * x.logps
    drawn = x.sample(samples, generator=generator, temperature=1.3 if temperature is None else temperature)
    hit = (drawn == x.labels[..., None]) & x.mask[..., None]  # [B,T,K]
    reward = torch.where(hit, 1.0, beta)
    tokens = x.mask.sum().clamp(min=1)
    note(hit_rate=hit.float().mean(-1).sum() / tokens, tokens_never_drawn=(x.mask & ~hit.any(-1)).sum() / tokens)
    return -(reward * x.logps_of(drawn)).mean(-1)


def _example(mask: Tensor) -> dict[str, Any]:
    return {"samples": None}


@claim(
    one_token_rollout,
    "At temperature 1 its mean gradient is (1 - beta) times likelihood's weighted by the label's own probability; "
    "at temperature 2 it is not.",
    cost="cpu:2s",
)
def is_weighted_likelihood_on_average() -> Evidence:
    logits, beta = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0], dtype=torch.float64), -0.5
    p = logits.softmax(-1)
    wanted = -(1 - beta) * p[:, None] * (torch.eye(7, dtype=torch.float64) - p)  # [label, id]

    def deviation(temperature: float) -> float:
        """The largest difference from it, in standard errors of the mean over 4,000 tokens of 16 draws."""
        table = logits.repeat(4000, 1).requires_grad_()
        worst = 0.0
        for label in range(7):
            x = Scored.from_logits(table[:, None], torch.full((4000, 1), label), shift=False)
            g = seeded(0, "one_token_rollout", label)
            loss = one_token_rollout(x, samples=16, temperature=temperature, beta=beta, generator=g)
            (slopes,) = torch.autograd.grad(loss.sum(), table)
            error = slopes.std(0) / 4000**0.5
            worst = max(worst, float(((slopes.mean(0) - wanted[label]).abs() / error).max()))
        return worst

    on, off = deviation(1.0), deviation(2.0)
    return Evidence(on < 4.0, {"standard errors off": on, "at temperature 2": off}, control=off > 6.0)


@claim(
    one_token_rollout,
    "Tuned on data with many random labels it keeps what the model knew; cross-entropy learns the errors too.",
    cost="cpu:8s",
)
def withstands_wrong_labels() -> Evidence:
    kept: dict[str, list[float]] = {"before": [], "one-token rollout": [], "cross-entropy": []}
    for seed in range(5):
        data = digits(400, seed=seed)
        noisy = digits(400, seed=seed, noise=0.4).y
        for name, loss in (("one-token rollout", partial(one_token_rollout, samples=None)), ("cross-entropy", _nll)):
            model = train_on(network(seed=seed), data.x[:100], data.y[:100], _nll, steps=200)
            before = accuracy(model, data.test_x, data.test_y)
            train_on(model, data.x[100:], noisy[100:], loss, steps=400)
            kept[name].append(accuracy(model, data.test_x, data.test_y))
        kept["before"].append(before)
    gaps = [a - b for a, b in zip(kept["one-token rollout"], kept["cross-entropy"], strict=True)]
    lost = min(a - b for a, b in zip(kept["before"], kept["cross-entropy"], strict=True))
    return Evidence(min(gaps) >= 0.15, kept, control=lost > 0.1)


def _nll(x: Scored) -> Tensor:
    return -x.logps
