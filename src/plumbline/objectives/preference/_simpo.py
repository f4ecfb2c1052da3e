"""SimPO: the reward is the mean log-probability that decoding itself follows, and no reference is needed."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, Positive, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.lab.preferences import preferred_optimum, quality_and_length
from plumbline.objectives.preference._dpo import dpo


@objective(
    paper=Paper(
        "SimPO: Simple Preference Optimization with a Reference-Free Reward", "Meng et al.", 2024, arxiv="2405.14734"
    ),
    says="Raise the chosen answer's mean log-probability above the rejected one's by a margin, without a reference.",
)
def simpo(chosen: Scored, rejected: Scored, *, beta: Positive = 2.0, gamma: NonNegative = 1.0) -> Tensor:
    r"""Per-pair SimPO loss.

    .. math:: \ell = -\log\sigma\!\Bigl(\frac{\beta}{|y_w|}\log\pi_\theta(y_w) - \frac{\beta}{|y_l|}\log\pi_\theta(y_l)
              - \gamma\Bigr)

    Args:
        chosen, rejected: the trained model on the preferred answer :math:`y_w` and the other :math:`y_l`, logps [B, T].
        beta: scale of the reward; the paper advises 2.0 to 2.5.
        gamma: target margin, in units of the reward, not divided by beta; the paper advises 0.5 to 1.5, and 1.0 is the
            middle of that.

    Returns:
        [B] nats.
    """
    return -F.logsigmoid(beta * (chosen.mean() - rejected.mean()) - gamma)


@claim(
    simpo,
    "The likelihood by which a model answers ranks answers as the reward does; after DPO it often does not.",
    cost="cpu:8s",
)
def likelihood_follows_the_reward() -> Evidence:
    g = generator(0, "simpo")
    rewards, ref = 3 * torch.rand(6, generator=g), 2 * torch.randn(6, generator=g)
    first, second = torch.combinations(torch.arange(6)).unbind(-1)

    def agreeing(score: Tensor) -> int:
        return int(((score[first] > score[second]) == (rewards[first] > rewards[second])).sum())

    own = agreeing(preferred_optimum(lambda w, loser, *_: simpo(w, loser), rewards, ref, steps=1000))
    tuned = preferred_optimum(partial(dpo, beta=1.0), rewards, ref, steps=1000)
    its, its_reward = agreeing(tuned), agreeing(tuned.log() - ref)
    told = {"pairs of 15 in order": own, "DPO's, by likelihood": its, "DPO's, by its own reward": its_reward}
    return Evidence(own == 15, told, control=its_reward == 15 and its <= 12)


@claim(simpo, "Without the division by length, training lengthens answers instead of improving them.", cost="cpu:3s")
def length_normalisation_matters() -> Evidence:
    def summed(chosen: Scored, rejected: Scored, *_: Scored) -> Tensor:
        return -F.logsigmoid(0.2 * (chosen.total() - rejected.total()) - 1.0)  # 2.0 on the mean of 10 tokens

    quality, length = quality_and_length(lambda chosen, rejected, *_: simpo(chosen, rejected))
    its_quality, its_length = quality_and_length(summed)
    told = {"good words": quality, "tokens": length, "good words, summed": its_quality, "tokens, summed": its_length}
    return Evidence(quality > 0.9 and length < 30, told, control=its_length > 100 and its_quality < 0.7)
