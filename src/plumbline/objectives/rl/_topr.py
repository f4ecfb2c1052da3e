"""TOPR: learn offline from right and wrong samples; the wrong ones fade as the policy leaves them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, claim, objective
from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.lab.bandits import rehearsed, scored


@objective(
    paper=Paper(
        "Tapered Off-Policy REINFORCE: Stable and efficient reinforcement learning for LLMs",
        "Le Roux et al.",
        2025,
        arxiv="2503.14286",
    ),
    says="REINFORCE on any samples: right ones at full weight, wrong ones weighed by how likely they still are.",
    differs=(
        "The canonical limits: ratio 1 for positives, within [0, 1] for negatives; the paper's general form has four.",
        "The equation was checked against the open implementations, whose ratio is a token's; here it is the paper's, "
        "of the whole sequence.",
    ),
)
def topr(x: Scored, x_sampler: Scored, rewards: Tensor, *, baseline: float = 0.0) -> Tensor:
    r"""Per-sequence loss.

    .. math:: \ell = -\mathrm{sg}(\alpha)\,(R - c)\,\log\pi_\theta(y),\qquad
              \alpha = \begin{cases} 1 & R > c \\ \min\bigl(1, \pi_\theta(y) / \mu(y)\bigr) & \text{else}\end{cases}

    For a wrong sample the gradient is that of -R pi / mu (as long as pi <= mu): bounded, and gone when pi is.

    Args:
        x: the trained model on the samples, logps [B, T]; alpha is detached.
        x_sampler: the behaviour policy mu on the same, logps [B, T], stored when the samples were drawn.
        rewards: R, [B]; +1 and -1 in the paper.
        baseline: c. It does not only cut variance here: it sets how much right samples weigh beside wrong ones.

    Returns:
        [B]. Notes ``alpha`` (the mean weight) and ``positives`` (the share of rows with R > c).

    Raises:
        InputError: log-probabilities of the sampler are missing (no role, or NaN) or do not fit; rewards are not [B].
    """
    if x_sampler is None:
        raise refuse("topr", "x_sampler", "the behaviour policy's log-probabilities", "none",
                     "store sampler_logps when sampling; a ratio of 1 cannot be assumed")  # fmt: skip
    if x_sampler.logps.shape != x.logps.shape or tuple(rewards.shape) != (len(x.logps),):
        got = (tuple(x_sampler.logps.shape), tuple(rewards.shape))
        expected = f"{tuple(x.logps.shape)} and [{len(x.logps)}]"
        raise refuse("topr", "x_sampler and rewards", f"of shapes {expected}", got, "give both for every sample")
    lost = (x.mask & x_sampler.logps.isnan()).any(-1).nonzero()[:, 0].tolist()
    if lost:
        raise refuse("topr", "x_sampler", "without NaN", f"NaN in row {lost[0]}", "drop rows the engine did not score")
    worth = rewards.detach().to(x.logps.dtype) - baseline
    alpha = torch.where(worth > 0, 1.0, x.detach().log_ratio(x_sampler).clamp(max=0).exp())
    note(alpha=alpha, positives=(worth > 0).float())
    return -alpha * worth * x.total()


def _example(mask: Tensor) -> dict[str, Tensor]:
    return {"rewards": torch.tensor([1.0, -1.0, -1.0, 1.0])}


@claim(
    topr,
    "Offline, plain REINFORCE's logits grow without end while TOPR's settle; and from a policy that hardly ever is "
    "right TOPR learns where importance sampling cannot, sooner than from the right samples alone.",
    cost="cpu:4s",
)
def learns_offline() -> Evidence:
    every = torch.arange(10)[:, None]  # drawn uniformly; arm 0 is right
    rewards = torch.where(torch.arange(10) == 0, 1.0, -1.0)
    uniform = torch.zeros(1, 10)
    mu = scored(uniform, every)
    unlikely = torch.tensor([[1e-4] + [(1 - 1e-4) / 9] * 9]).log()

    def ratio(x: Scored) -> Tensor:
        return (x.total().detach() - mu.total()).exp()

    losses: dict[str, Callable[[Scored], Tensor]] = {
        "topr": lambda x: topr(x, mu, rewards),
        "right samples alone": lambda x: -rewards.clamp(min=0) * x.total(),
        "importance sampling": lambda x: -ratio(x) * rewards * x.total(),
        "truncated importance sampling": lambda x: -ratio(x).clamp(max=1) * rewards * x.total(),
        "reinforce": lambda x: -rewards * x.total(),
    }
    learned = {
        name: float(rehearsed(loss, unlikely, every, steps=150, lr=0.5).softmax(-1)[0, 0])
        for name, loss in list(losses.items())[:4]
    }
    size = {
        name: float(rehearsed(losses[name], uniform, every, steps=400, lr=1.0).abs().max())
        for name in ("topr", "reinforce")
    }
    ours, right, full, cut = learned.values()
    measured = {"pi(right)": learned, "largest logit": size}
    holds = ours > 0.8 and ours > right and size["topr"] < 8
    return Evidence(holds, measured, control=max(full, cut) < 2e-4 and right < 0.5 and size["reinforce"] > 100)
