"""Focal loss: likelihood that loses interest in tokens the model already gets right."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.lab.digits import digits, network, scored, train_on


@objective(
    paper=Paper("Focal Loss for Dense Object Detection", "Lin et al.", 2017, arxiv="1708.02002"),
    says="Scale each token's likelihood loss by a power of the chance of getting it wrong, so easy tokens fade.",
    differs=(
        "p is the label's softmax probability over the vocabulary; the paper's is a sigmoid per class and anchor.",
        "The paper's class weight alpha is left out: it balances object against background, which tokens are not.",
    ),
)
def focal(x: Scored, *, gamma: NonNegative = 2.0) -> Tensor:
    r"""Per-token focal loss; its gradient flows through both factors.

    .. math:: \ell_t = -(1 - p_t)^\gamma \log p_t, \qquad p_t = \pi_\theta(y_t \mid y_{<t})

    Args:
        x: the trained model, logps [B, T].
        gamma: how fast easy tokens fade; 0 is the negative log-likelihood, 2 the paper's best.

    Returns:
        [B, T] nats, 0 where masked.
    """
    wrong = (-torch.expm1(x.logps)).clamp(min=1e-12)  # 1 - p, exact near p = 1; the floor keeps its power smooth
    factor = torch.where(x.mask, wrong**gamma, 0.0)
    note(focal_factor=factor.sum() / x.mask.sum().clamp(min=1))
    return -factor * x.logps


@claim(
    focal,
    "On a half-trained classifier the hardest tenth of the examples carries nearly all of the loss and the easier half "
    "next to none; under cross-entropy the easy half keeps a share.",
    cost="cpu:3s",
)
def hard_examples_carry_the_loss() -> Evidence:
    rows = []
    for seed in range(3):
        data = digits(300, seed=seed)
        model = train_on(network(seed=seed), data.x, data.y, lambda x: focal(x, gamma=0.0), steps=60)
        with torch.no_grad():
            x = scored(model, data.test_x, data.test_y)
            shares = [loss.sort().values.div(loss.sum()) for loss in (focal(x)[:, 0], focal(x, gamma=0.0)[:, 0])]
        n = len(shares[0])
        rows.append([float(part.sum()) for s in shares for part in (s[-(n // 10) :], s[: n // 2])])
    hard, easy, plain_hard, plain_easy = (list(column) for column in zip(*rows, strict=True))
    return Evidence(
        holds=min(hard) > 0.85 and max(easy) < 1e-3,
        measured={"hardest tenth, easier half": [hard, easy], "under cross-entropy": [plain_hard, plain_easy]},
        control=max(plain_hard) < 0.7 and min(plain_easy) > 0.03,
    )
