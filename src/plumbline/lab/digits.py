"""Handwritten digits with wrong labels and a small network: where a loss on noisy answers shows what it does.

An image is a prompt and its class the one token of the answer, so that any loss on ``Scored`` views can be trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import forked, generator

CLASSES = 10


class Digits(NamedTuple):
    """Images [N,64] in [0,1] and classes [N] to train on, and those kept for the test."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def digits(train: int, *, seed: int, noise: float = 0.0) -> Digits:
    """scikit-learn's 1,797 digits, shuffled by ``seed``: ``train`` of them to learn from and the rest for the test.

    A share ``noise`` of the labels to learn from is drawn uniformly from all classes, the right one among them.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    g = generator(seed, "digits")
    order = torch.randperm(len(bunch.target), generator=g)
    x, y = torch.tensor(bunch.data[order] / 16, dtype=torch.float32), torch.tensor(bunch.target[order])
    wrong = torch.rand(train, generator=g) < noise
    labels = torch.where(wrong, torch.randint(CLASSES, (train,), generator=g), y[:train])
    return Digits(x[:train], labels, x[train:], y[train:])


def network(width: int = 128, *, seed: int) -> torch.nn.Sequential:
    """64 inputs, one hidden layer of ReLU, 10 classes."""
    with forked(seed, "digits", "network"):
        return torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, CLASSES))


def scored(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Scored:
    """N rows of one token each: ``Scored`` of [N,1] over 10 classes."""
    return Scored.from_logits(model(x)[:, None], y[:, None], shift=False)


def train_on(
    model: torch.nn.Module, x: Tensor, y: Tensor, loss: Callable[[Scored], Tensor], *, steps: int, lr: float = 3e-3
) -> torch.nn.Module:
    """Full-batch Adam on the mean of ``loss``; trains ``model`` in place and returns it."""
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        adam.zero_grad()
        loss(scored(model, x, y)).mean().backward()
        adam.step()
    return model


@torch.no_grad()
def accuracy(model: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of images whose likeliest class is the right one."""
    return float((model(x).argmax(-1) == y).float().mean())


@torch.no_grad()
def coverage(model: torch.nn.Module, x: Tensor, y: Tensor, samples: int) -> float:
    r"""Expected share solved by ``samples`` draws (pass@N): the mean of :math:`1 - (1 - p_y)^N`."""
    p = scored(model, x, y).total().exp()
    return float((1 - (1 - p) ** samples).mean())
