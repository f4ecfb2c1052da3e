"""Kahneman-Tversky Optimization: single judged answers, valued as gains and losses that level off."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, Positive, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.kernels.ranks import everywhere
from plumbline.lab.preferences import judged_optimum
from plumbline.objectives.preference.judgement import per_row


@objective(
    paper=Paper(
        "KTO: Model Alignment as Prospect Theoretic Optimization", "Ethayarajh et al.", 2024, arxiv="2402.01306"
    ),
    says="Raise good answers and lower bad ones, each by itself, with a pull that fades far from the reference point.",
    differs=("z0 is the mean over the rows of all processes, not the mean of the processes' means.",),
    needs=("batch",),
)
def kto(
    x: Scored, x_ref: Scored, desirable: Tensor, mismatched: Scored, mismatched_ref: Scored, *, beta: Positive = 0.1,
    desirable_weight: NonNegative = 1.0, undesirable_weight: NonNegative = 1.0,
) -> Tensor:  # fmt: skip
    r"""Per-row KTO loss.

    .. math:: \ell = \begin{cases} \lambda_D\,(1 - \sigma(\beta(h - z_0))) & \text{desirable}\\
              \lambda_U\,(1 - \sigma(\beta(z_0 - h))) & \text{undesirable}\end{cases}\qquad
              h = \log\frac{\pi_\theta(y|x)}{\pi_{ref}(y|x)},\quad
              z_0 = \max\bigl(0,\ \tfrac1n\textstyle\sum_i h(x_i, y_{i-1})\bigr)

    :math:`z_0` estimates the KL to the reference from prompts with another row's answer, over all processes (with
    gradient accumulation, of one micro-batch), and is detached: gradients reach ``x`` alone.

    Args:
        x, x_ref: the trained model and the frozen reference on judged answers, logps [B, T].
        desirable: [B] bool, the judgement.
        mismatched, mismatched_ref: the same on each prompt with the answer of another row, logps [B', T'].
        beta: how fast the value levels off. desirable_weight, undesirable_weight: :math:`\lambda_D, \lambda_U`; the
            paper advises :math:`\lambda_D n_D / (\lambda_U n_U)` within [1, 4/3].

    Returns:
        [B] in [0, lambda].

    Raises:
        InputError: ``desirable`` is not of shape [B].
    """
    z0 = everywhere(mismatched.log_ratio(mismatched_ref)).mean().clamp(min=0)
    note(z0=z0)
    good = per_row("kto", "desirable", desirable, x).to(torch.bool)
    gain = x.log_ratio(x_ref) - z0
    value = torch.sigmoid(beta * torch.where(good, gain, -gain))
    weight = torch.where(good, desirable_weight, undesirable_weight).to(value.dtype)
    return weight * (1 - value)


def _example(mask: Tensor) -> dict[str, Tensor]:
    return {"desirable": torch.arange(len(mask)) % 2 == 0}


@claim(
    kto,
    "Where judges contradict each other it settles on what most of them like; cross-entropy keeps the rest as well.",
    cost="cpu:5s",
)
def follows_the_majority() -> Evidence:
    liked = torch.tensor([0.65, 0.6, 0.55, 0.45, 0.4, 0.35])  # the share of judges who like each answer
    ref = torch.tensor([[0.1, 0.6, 0.1, 0.0, 0.5, 0.0]])
    found, desirable, prompts = torch.arange(6).repeat(2), torch.arange(12) < 6, torch.zeros(12, dtype=torch.long)
    often = torch.cat([liked, 1 - liked])

    def majority(loss: Callable[[Scored, Scored, Tensor], Tensor]) -> float:
        return float(judged_optimum(loss, prompts, found, desirable, ref, weight=often)[0, :3].exp().sum())

    def entropy(x: Scored, x_ref: Scored, good: Tensor) -> Tensor:
        reward = 0.5 * x.log_ratio(x_ref)
        return -F.logsigmoid(torch.where(good, reward, -reward))

    # of one prompt, every answer is some other row's: the mismatched rows are the rows
    own = majority(lambda x, x_ref, good: kto(x, x_ref, good, x, x_ref, beta=0.5))
    its = majority(entropy)
    told = {"mass that most like": own, "under cross-entropy": its, "in the reference": ref.softmax(-1)[0, :3].sum()}
    return Evidence(own > 0.99, told, control=its < 0.9)
