"""Handwritten digits: a linear head under any loss, and encoders whose features are compared with each other's."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import forked
from plumbline.lab.digits import CLASSES, Digits, digits, train_on

PIXELS = 64
Beside = Callable[[Tensor, Tensor, Tensor], Tensor]  # features [N,width], images [N,64], classes [N] -> [N]


def images() -> Digits:
    """1200 digits to train on and 597 for the test."""
    return digits(1200, seed=0)


def linear_head(loss: Callable[[Scored], Tensor], *, start: float = 0.0) -> nn.Module:
    """A linear head [10,64] trained on every digit at once with a loss on ``Scored``.

    Args:
        start: what every bias begins with; cross-entropy never learns of it.
    """
    with forked(0, "linear_head"):
        head = nn.Linear(PIXELS, CLASSES)
    nn.init.constant_(head.bias, start)
    data = images()
    return train_on(head, data.x, data.y, loss, steps=300, lr=0.05).requires_grad_(False)


def top(head: nn.Module, k: int) -> float:
    """Share of the test digits whose class is among the k highest scores."""
    data = images()
    return float((head(data.test_x).topk(k).indices == data.test_y[:, None]).any(-1).float().mean())


def free_head(width: int, seed: int = 0) -> nn.Module:
    """A classification head [10,width] that is trained along, from weights of its own seed."""
    with forked(seed, "free_head"):
        return nn.Linear(width, CLASSES, bias=False)


def encoder(
    head: nn.Module, width: int, *, rows: int = 1200, seed: int = 0, steps: int = 150, beside: Beside | None = None,
    share: float = 0.1,
) -> nn.Module:  # fmt: skip
    """A small network 64 -> 128 -> ``width`` trained under a classification head, with Adam on all rows at once.

    Args:
        head: features [N,width] -> logits [N,C]; its parameters, if it has any, are trained along.
        rows: how many of the training digits are used. seed: of the weights.
        beside: a second loss; the total is then ``share`` of the cross-entropy and the rest of this one.
    """
    data = images()
    x, y = data.x[:rows], data.y[:rows]
    with forked(seed, "encoder"):
        body = nn.Sequential(nn.Linear(PIXELS, 128), nn.ReLU(), nn.Linear(128, width))
    adam = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(steps):
        features = body(x)
        loss = F.cross_entropy(head(features), y)
        if beside is not None:
            loss = share * loss + (1 - share) * beside(features, x, y).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return body.requires_grad_(False)


def retrieval(queries: nn.Module, gallery: nn.Module) -> float:
    """How often a test digit's nearest training digit (by cosine) has its class: one model asks, another answers."""
    data = images()
    ask, answer = F.normalize(queries(data.test_x), dim=-1), F.normalize(gallery(data.x), dim=-1)
    return float((data.y[(ask @ answer.T).argmax(-1)] == data.test_y).float().mean())
