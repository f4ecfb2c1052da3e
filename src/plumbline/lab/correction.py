"""Questions with a known answer, and a model that repeats any answer it has before it: what correction must undo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.core.scored import Scored
from plumbline.kernels.seeds import forked, generator

QUESTIONS, ANSWERS, NONE = 20, 20, 20  # NONE: no answer stands before this turn
KNOWN = 0.5  # share of the base model's direct answers that are right; the others are any answer


def right(question: int) -> int:
    """The answer to a question."""
    return (7 * question + 3) % ANSWERS


def question_rows(repeats: int = 8) -> list[dict[str, str]]:
    """Every question ``repeats`` times, as text: ``{"prompt": "5", "completion": " 18"}``."""
    return [{"prompt": f"{q}", "completion": f" {right(q)}"} for q in range(QUESTIONS) for _ in range(repeats)]


class Answerer(nn.Module):
    """Logits [N,20] over answers, of questions [N] and the answers that stand before [N] (``NONE`` for none)."""

    def __init__(self, seed: int, width: int = 32, hidden: int = 128) -> None:
        super().__init__()
        with forked(seed, "correction"):
            self.question, self.before = nn.Embedding(QUESTIONS, width), nn.Embedding(ANSWERS + 1, width)
            self.out = nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, ANSWERS))

    def forward(self, question: Tensor, before: Tensor) -> Tensor:
        return self.out(torch.cat([self.question(question), self.before(before)], -1))

    @torch.no_grad()
    def says(self, prompts: Sequence[str], seed: int = 0) -> list[str]:
        """One sampled answer to each prompt."""
        p = self(*_read(prompts)).softmax(-1)
        drawn = torch.multinomial(p, 1, generator=generator(seed, "correction", "says"))[:, 0]
        return [f" {int(a)}" for a in drawn]

    @torch.no_grad()
    def accuracy(self, *, after_wrong: bool) -> float:
        """Mean probability of the right answer: asked directly, or after each of the wrong answers."""
        pairs = [
            (q, a) for q in range(QUESTIONS) for a in (range(ANSWERS) if after_wrong else (NONE,)) if a != right(q)
        ]
        q, before = torch.tensor(pairs).unbind(-1)
        wanted = torch.tensor([right(int(i)) for i in q])
        return float(self(q, before).softmax(-1).gather(-1, wanted[:, None]).mean())


def _read(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Questions and answers before, from prompts "5" or "5 18 ...": numbers in order of appearance."""
    found = [[int(word) for word in prompt.split() if word.isdigit()] for prompt in prompts]
    return torch.tensor([f[0] for f in found]), torch.tensor([f[1] if len(f) > 1 else NONE for f in found])


def _fit(net: Answerer, loss: Callable[[], Tensor], steps: int) -> Answerer:
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        adam.zero_grad()
        loss().backward()
        adam.step()
    return net


def repeater(seed: int) -> Answerer:
    """The base model: half of its direct answers are right, and after an answer it says the same again."""
    net = Answerer(seed)
    q, before = torch.cartesian_prod(torch.arange(QUESTIONS), torch.arange(ANSWERS + 1)).unbind(-1)
    direct = torch.full((len(q), ANSWERS), (1 - KNOWN) / ANSWERS)
    direct[torch.arange(len(q)), torch.tensor([right(int(i)) for i in q])] += KNOWN
    again = nn.functional.one_hot(before.clamp(max=ANSWERS - 1), ANSWERS).float()
    wanted = torch.where((before == NONE)[:, None], direct, again)
    return _fit(net, lambda: nn.functional.cross_entropy(net(q, before), wanted), 300)


def tuned(net: Answerer, rows: Sequence[Mapping[str, Any]], steps: int = 200) -> Answerer:
    """``net``, trained further on rows with prompt and completion."""
    q, before = _read([row["prompt"] for row in rows])
    wanted = torch.tensor([[int(row["completion"])] for row in rows])
    return _fit(net, lambda: -Scored.from_logits(net(q, before)[:, None], wanted, shift=False).logps.mean(), steps)
