"""An order-2 Markov source and small networks that learn it: what a teacher smaller than its student is worth."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import forked, generator

SYMBOLS = 30
Loss = Callable[[Scored, Scored, float], Tensor]  # (student, teacher, progress) -> [N,1]


class Source:
    """30 symbols; the logits of the next one given the last two are normal with standard deviation ``spread``."""

    def __init__(self, seed: int, *, spread: float = 2.0) -> None:
        logits = torch.randn(SYMBOLS, SYMBOLS, SYMBOLS, generator=generator(seed, "markov2"))
        self.p, self.seed = (spread * logits).softmax(-1), seed

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """n independent contexts [n,2], uniform, and what follows each [n]; the same ones at every call."""
        g = generator(self.seed, "draw")
        context = torch.randint(SYMBOLS, (n, 2), generator=g)
        return context, torch.multinomial(self.p[context[:, 0], context[:, 1]], 1, generator=g)[:, 0]

    def nll(self, network: nn.Module) -> float:
        """Cross-entropy of the source under a network over all 900 contexts, nats."""
        first, second = torch.meshgrid(torch.arange(SYMBOLS), torch.arange(SYMBOLS), indexing="ij")
        with torch.no_grad():
            logits = network(torch.stack([first, second], -1).flatten(0, 1))
        return float(F.cross_entropy(logits, self.p.flatten(0, 1)))


def network(hidden: int, seed: int, *, embedding: int = 24) -> nn.Module:
    """Two symbols [N,2] -> embeddings -> one hidden layer of ReLU -> logits [N,30]."""
    with forked(seed, "markov2 network", hidden):
        return nn.Sequential(
            nn.Embedding(SYMBOLS, embedding), nn.Flatten(), nn.Linear(2 * embedding, hidden), nn.ReLU(),
            nn.Linear(hidden, SYMBOLS),
        )  # fmt: skip


def train(
    source: Source, student: nn.Module, loss: Loss, *, steps: int, teacher: nn.Module | None = None, rows: int = 256,
    lr: float = 3e-3,
) -> nn.Module:  # fmt: skip
    """Adam on fresh draws of the source, ``rows`` a step; trains ``student`` in place and returns it."""
    adam = torch.optim.Adam(student.parameters(), lr=lr)
    contexts, followers = source.draw(rows * steps)
    for step, (context, y) in enumerate(zip(contexts.split(rows), followers.split(rows), strict=True)):
        x = Scored.from_logits(student(context)[:, None], y[:, None], shift=False)
        with torch.no_grad():
            guide = x if teacher is None else Scored.from_logits(teacher(context)[:, None], y[:, None], shift=False)
        adam.zero_grad()
        loss(x, guide, step / steps).mean().backward()
        adam.step()
    return student
