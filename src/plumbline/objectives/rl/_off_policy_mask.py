"""Off-policy sequence mask: bad answers that the policy has already left behind are not pushed down further."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, Positive, claim, function
from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.lab.preferences import answers
from plumbline.objectives.rl.correction import geometric, log_ratios


@function(
    paper=Paper(
        "DeepSeek-V3.2: Pushing the Frontier of Open Large Language Models", "DeepSeek-AI", 2025, arxiv="2512.02556"
    ),
    says="Drop answers of negative advantage that the policy finds much less likely than their engine did.",
    differs=(
        "The paper gives no threshold: 0.5 nats a token is the example of TRL's documentation.",
        "Advantages by token are taken too; then an answer loses its tokens of negative advantage.",
    ),
)
def off_policy_mask(x: Scored, x_sampler: Scored, advantages: Tensor, *, delta: Positive = 0.5) -> Tensor:
    r"""1 to keep, 0 to drop.

    .. math:: M = 0 \ \text{ if }\ A < 0 \ \text{ and }\ \frac{1}{|y|}\sum_t \log\frac{\mu(y_t)}{\pi_\theta(y_t)}
              > \delta,\qquad \text{else } 1

    Engine mismatch and staleness are judged together; pass the role ``x_old`` in the engine's place where its
    log-probabilities are missing. The share of rows dropped is noted as ``off_policy_dropped``.

    Args:
        x: the trained model, logps [B,T]; detached here. x_sampler: the engine's, [B,T].
        advantages: [B] or [B,T].
        delta: nats a token.

    Returns:
        [B,1], or [B,T] for advantages by token; multiply the policy term by it.

    Raises:
        InputError: no engine log-probabilities, or shapes that do not fit.
    """
    rows, tokens = x.logps.shape
    if advantages.shape not in ((rows,), (rows, tokens)):
        raise refuse("off_policy_mask", "advantages", f"of shape [{rows}] or [{rows}, {tokens}]",
                     tuple(advantages.shape), "pass one per row or per token")  # fmt: skip
    drift = -geometric(log_ratios("off_policy_mask", x, x_sampler), x.mask)  # [B,1]
    by_token = advantages.detach().reshape(rows, -1)
    dropped = (by_token < 0) & (drift > delta)
    note(off_policy_dropped=dropped.any(-1).float().mean())
    return torch.where(dropped, 0.0, 1.0).to(x.logps.dtype)


@claim(
    off_policy_mask,
    "On a stale batch, pushing bad answers down makes the logits grow in proportion to the steps; with the mask like"
    " their logarithm.",
    cost="cpu:4s",
)
def stale_negatives_slow_down() -> Evidence:
    advantages = torch.tensor([1.0] * 5 + [-1.0] * 5)
    engine = answers(torch.zeros(10)).detach()

    def largest_logit(masked: bool) -> list[float]:
        table, found = torch.zeros(10), []
        for step in range(1, 801):
            table.requires_grad_()
            x = answers(table)
            keep = off_policy_mask(x, engine, advantages) if masked else torch.ones(10, 1)
            loss = -(keep * advantages[:, None] * x.logps).mean()
            (slope,) = torch.autograd.grad(loss, table)
            table = table.detach() - 0.5 * slope
            if step in (200, 800):
                found.append(float(table.abs().max()))
        return found

    plain, masked = largest_logit(False), largest_logit(True)
    measured = {"largest logit at 200 and 800 steps": masked, "without the mask": plain}
    return Evidence(masked[1] - masked[0] < math.log(4), measured, control=plain[1] > 3 * plain[0])
