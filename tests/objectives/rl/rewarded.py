"""zoo:base trained on answers that a reward judged: does what it pays for grow likelier than what it does not?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tests.short_training import base, row, scored, trained

from plumbline.objectives import group_advantages, grpo, nll


def margins(reward: Callable[[str, dict[str, Any], bool], float], texts: Sequence[str], told: dict[str, Any]) -> Any:
    """Nats a token by which 20 steps raise the paid answers over the others: (under grpo, under nll of all)."""
    rewards = torch.tensor([reward(text, told, True) for text in texts])
    advantages = group_advantages(rewards, torch.zeros(len(texts), dtype=torch.long))
    lm = base()
    rows = [row(lm, "Question: 2 + 3 = ", text, advantages=float(a)) for text, a in zip(texts, advantages, strict=True)]
    good = advantages > 0
    found = []
    for loss in (lambda s: s.mean(grpo(s.x, s.advantages, s.x_old)), lambda s: s.mean(nll(s.x))):
        done = trained(loss, {"x": rows}, batch_size=len(rows), lr=3e-4)
        moved = scored(done.model, rows).mean() - scored(base(), rows).mean()
        found.append(float(moved[good].mean() - moved[~good].mean()))
    return found
