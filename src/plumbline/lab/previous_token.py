"""A task with a shortcut: the next token follows from the question, or from the previous token alone.

Row a is a question and then ``LENGTH`` answers :math:`s_t = 7a + 3t` modulo 20. While the true answers are read,
:math:`s_t = s_{t-1} + 3` needs no question; where the previous token is wrong, only the question helps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import forked, generator

ANSWERS, LENGTH = 20, 10
MASK = 2 * ANSWERS  # ids: answers 0 to 19, question a is 20 + a, and a mask


class ShortcutNet(nn.Module):
    """Sees the question, the place and the previous token, nothing else: prefixes [B,L] -> logits [B,L,20]."""

    def __init__(self, seed: int, width: int = 16, hidden: int = 64) -> None:
        super().__init__()
        with forked(seed, "previous_token"):
            self.question, self.place = nn.Embedding(ANSWERS, width), nn.Embedding(LENGTH + 1, width)
            self.previous = nn.Embedding(MASK + 1, width)
            self.out = nn.Sequential(nn.Linear(3 * width, hidden), nn.ReLU(), nn.Linear(hidden, ANSWERS))

    def forward(self, ids: Tensor) -> Tensor:
        asked, place = self.question(ids[:, :1] - ANSWERS), self.place(torch.arange(ids.shape[1]))
        seen = self.previous(ids)
        return self.out(torch.cat([asked.expand_as(seen), place.expand_as(seen), seen], -1))

    @torch.no_grad()
    def next(self, prefix: Tensor) -> Tensor:
        """Logits [B,20] of the token after a prefix [B,t]."""
        return self(prefix)[:, -1]


def rows() -> tuple[Tensor, Tensor]:
    """Every question with its answers: ids [20,11] and labels, -100 on the question."""
    a, t = torch.arange(ANSWERS)[:, None], torch.arange(LENGTH)
    ids = torch.cat([a + ANSWERS, (7 * a + 3 * t) % ANSWERS], 1)
    labels = ids.clone()
    labels[:, 0] = -100
    return ids, labels


def taught(change: Callable[[ShortcutNet, int], Tensor], *, steps: int, seed: int = 0, lr: float = 3e-3) -> ShortcutNet:
    """A net trained with Adam on all rows at once; the input of each step is what ``change(net, step)`` returns.

    The labels are the true answers, whatever the input.
    """
    net = ShortcutNet(seed)
    ids, labels = rows()
    adam = torch.optim.Adam(net.parameters(), lr=lr)
    for step in range(steps):
        x = Scored.from_logits(net(change(net, step)), ids, labels != -100)
        adam.zero_grad()
        (-x.logps.sum() / x.mask.sum()).backward()
        adam.step()
    return net


def survives(
    mix: Callable[[ShortcutNet, Tensor, Tensor], Tensor], *, frozen_at: int | None, steps: int, seed: int
) -> float:
    """Accuracy on wrong previous tokens of a net whose input is ``mix(copy, ids, labels)`` from ``frozen_at`` on.

    The copy is the net as it was at that step; with None it is the live net, from the first step on.
    """
    ids, labels = rows()
    kept: list[ShortcutNet] = []

    def change(net: ShortcutNet, step: int) -> Tensor:
        if frozen_at is None:
            return mix(net, ids, labels)
        if step == frozen_at:
            kept.append(copy.deepcopy(net).eval())
        return mix(kept[0], ids, labels) if kept else ids

    return accuracy(taught(change, steps=steps, seed=seed), noise=True)


@torch.no_grad()
def accuracy(net: ShortcutNet, *, noise: bool, seed: int = 0) -> float:
    """Share of right answers after the first; ``noise``: the previous answers are replaced by random ones."""
    ids, _ = rows()
    given = ids.repeat(50, 1)
    wanted = given[:, 2:]
    if noise:
        given = given.clone()
        given[:, 1:] = torch.randint(ANSWERS, wanted.shape[:1] + (LENGTH,), generator=generator(seed, "noise"))
    return float((net(given)[:, 1:-1].argmax(-1) == wanted).float().mean())
