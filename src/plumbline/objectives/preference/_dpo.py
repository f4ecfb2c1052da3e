"""Direct Preference Optimization: the reward model is the log-ratio of the policy to its reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.core.declare import Bound, Evidence, Paper, Positive, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.lab.preferences import preferred_optimum


@objective(
    paper=Paper(
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        "Rafailov et al.",
        2023,
        arxiv="2305.18290",
    ),
    says="Raise the chosen answer's log-ratio to the reference above the rejected one's, as Bradley-Terry would.",
    differs=("label_smoothing is that of conservative DPO (Mitchell, 2023), 0 by default.",),
)
def dpo(
    chosen: Scored, rejected: Scored, chosen_ref: Scored, rejected_ref: Scored, *, beta: Positive = 0.1,
    label_smoothing: Annotated[float, Bound(ge=0, lt=0.5)] = 0.0,
) -> Tensor:  # fmt: skip
    r"""Per-pair DPO loss.

    .. math:: \ell = -(1-\epsilon)\log\sigma(\beta\Delta) - \epsilon\log\sigma(-\beta\Delta),\qquad
              \Delta = \log\frac{\pi_\theta(y_w)}{\pi_{ref}(y_w)} - \log\frac{\pi_\theta(y_l)}{\pi_{ref}(y_l)}

    Args:
        chosen, rejected: the trained model on the preferred answer :math:`y_w` and the other :math:`y_l`, logps [B, T].
        chosen_ref, rejected_ref: the frozen reference on the same.
        beta: strength of the tie to the reference; label_smoothing: share of labels believed to be wrong.

    Returns:
        [B] nats.
    """
    margin = chosen.log_ratio(chosen_ref) - rejected.log_ratio(rejected_ref)
    right, wrong = F.logsigmoid(beta * margin), F.logsigmoid(-beta * margin)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


@claim(
    dpo,
    "On Bradley-Terry pairs its optimum is ref(y) exp(r(y)/beta), the KL-regularised optimum of the unseen reward.",
    cost="cpu:4s",
)
def is_the_regularised_optimum() -> Evidence:
    g = generator(0, "dpo")
    rewards, ref, beta = torch.rand(6, generator=g) * 2, torch.randn(6, generator=g) * 0.5, 0.5
    wanted = (ref + rewards / beta).softmax(-1)

    def off(loss: Callable[..., Tensor]) -> float:
        return float((preferred_optimum(loss, rewards, ref) - wanted).abs().max())

    found = off(partial(dpo, beta=beta))
    blind = off(lambda w, loser, w_ref, l_ref: -F.logsigmoid(beta * (w.total() - loser.total())))  # no reference
    return Evidence(found < 1e-3, {"largest error": found, "without the reference": blind}, control=blind > 0.05)
