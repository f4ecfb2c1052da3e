"""Three answers to each of a few questions, their rewards as columns: what a reward's shape makes of zoo:base."""

from __future__ import annotations

from typing import Any

import torch
from tests.short_training import base, row, scored, trained

WORDS = ("red", "green", "blue")


def asked(*rewards: tuple[float, ...]) -> list[dict[str, Any]]:
    """A row for each of 8 questions and 3 answers; ``rewards`` are columns ``r0``, ``r1``, ... of the answers."""
    lm = base()
    columns = [{f"r{i}": float(column[k]) for i, column in enumerate(rewards)} for k in range(3)]
    return [
        row(lm, f"Question {q}. Which colour?", f" It is {word}.", question=q, **columns[k])
        for q in range(8)
        for k, word in enumerate(WORDS)
    ]


def preferred(shape: Any, rows: list[dict[str, Any]], over: tuple[int, int], **settings: Any) -> float:
    """Nats by which answer ``over[0]`` leads ``over[1]`` after 20 steps of policy gradient on ``shape(roles)`` [B]."""

    def loss(s: Any) -> torch.Tensor:
        value = shape(s).float()
        return s.mean(-(value - value.mean()) / (value.std() + 1e-6) * s.x.mean())

    model = trained(loss, {"x": rows}, batch_size=len(rows), lr=1e-4, **settings).model
    totals = scored(model, rows).total().view(-1, 3).mean(0)
    return float(totals[over[0]] - totals[over[1]])
