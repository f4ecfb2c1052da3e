"""Length-normalised DPO: the preference stage of Tulu 3, where a long answer weighs no more than a short one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, Positive, claim, objective
from plumbline.core.scored import Scored
from plumbline.lab.preferences import quality_and_length
from plumbline.objectives.preference._dpo import dpo


@objective(
    paper=Paper(
        "TÜLU 3: Pushing Frontiers in Open Language Model Post-Training", "Lambert et al.", 2024, arxiv="2411.15124"
    ),
    says="DPO on log-ratios divided by their own answer's length, so that no answer gains by its length.",
)
def dpo_norm(
    chosen: Scored, rejected: Scored, chosen_ref: Scored, rejected_ref: Scored, *, beta: Positive = 5.0
) -> Tensor:
    r"""Per-pair length-normalised DPO loss.

    .. math:: \ell = -\log\sigma\!\Bigl(\frac{\beta}{|y_w|}\log\frac{\pi_\theta(y_w)}{\pi_{ref}(y_w)}
              - \frac{\beta}{|y_l|}\log\frac{\pi_\theta(y_l)}{\pi_{ref}(y_l)}\Bigr)

    Args:
        chosen, rejected: the trained model on the preferred answer :math:`y_w` and the other :math:`y_l`, logps [B, T].
        chosen_ref, rejected_ref: the frozen reference on the same.
        beta: strength of the tie to the reference, per token: 5 here is about DPO's 0.1 on answers of 50 tokens.

    Returns:
        [B] nats.
    """
    margin = (chosen.mean() - chosen_ref.mean()) - (rejected.mean() - rejected_ref.mean())
    return -F.logsigmoid(beta * margin)


@claim(
    dpo_norm,
    "Where judges lean to long answers, DPO buys its margin with length; length-normalised DPO learns the quality.",
    cost="cpu:3s",
)
def does_not_run_away_in_length() -> Evidence:
    (quality, length), (its_quality, its_length) = quality_and_length(dpo_norm), quality_and_length(dpo)
    told = {"good words": quality, "tokens": length, "good words, DPO": its_quality, "tokens, DPO": its_length}
    return Evidence(quality > 0.75 and length < 25, told, control=its_length > 100 and its_quality < quality)
