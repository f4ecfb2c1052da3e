"""Negative log-likelihood: what every supervised loss is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, claim, objective
from plumbline.core.scored import Scored


@objective(
    paper=None,
    says="Maximum likelihood on the scored tokens: cross-entropy, a token at a time.",
    differs=("The standard loss of supervised fine-tuning and of language modelling; it has no paper of its own.",),
)
def nll(x: Scored) -> Tensor:
    r"""Per-token cross-entropy.

    .. math:: \ell_t = -\log\pi_\theta(y_t \mid y_{<t})

    Args:
        x: the trained model, logps [B, T].

    Returns:
        [B, T] nats, 0 where masked. The trainer divides their sum by the scored tokens of the whole accumulated batch.
    """
    return -x.logps


@claim(
    nll, "Its minimiser is the distribution of the data; of a loss on accuracy (1 - p) it is the mode.", cost="cpu:2s"
)
def recovers_the_data() -> Evidence:
    data = torch.tensor([0.5, 0.3, 0.2])
    ids = torch.arange(3)[:, None]

    def fitted(loss: object) -> Tensor:
        table = torch.zeros(3, requires_grad=True)
        for _ in range(400):
            x = Scored.from_logits(table.expand(3, 1, 3), ids, shift=False)
            (slope,) = torch.autograd.grad((data * loss(x).sum(-1)).sum(), table)  # type: ignore[operator]
            table = (table.detach() - 2.0 * slope).requires_grad_()
        return table.detach().softmax(-1)

    found, mode = fitted(nll), fitted(lambda x: 1 - x.logps.exp())
    off = float((found - data).abs().max())
    return Evidence(
        off < 1e-3, {"largest error": off, "mass of the mode under 1 - p": mode[0]}, control=bool(mode[0] > 0.95)
    )
