"""A policy that answers questions in one of a few styles: what a reward on texts does to it, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from plumbline.kernels.divergence import log_probs
from plumbline.kernels.seeds import generator

Reward = Callable[[str, Mapping[str, Any], bool], float]


@dataclass(frozen=True)
class Style:
    """How an answer is put: a template with one ``{}``, and whether the text ends by itself."""

    template: str
    ended: bool = True


@dataclass(frozen=True)
class Answering:
    """Q questions, S styles, A answers; the style is drawn first, and then the answer to the question in that style.

    ``style`` [S] and ``content`` [Q,S,A] are logits; ``rows`` hold the label of each question, ``answers`` the texts.
    """

    rows: Sequence[Mapping[str, Any]]
    styles: Sequence[Style]
    answers: Sequence[str]
    style: Tensor
    content: Tensor
    path: tuple[Mapping[str, float], ...] = field(default=())

    @classmethod
    def arithmetic(
        cls, styles: Sequence[Style], shares: Sequence[float], right: Sequence[float], *, questions: int = 20,
        seed: int = 0, **row: Any,
    ) -> Answering:  # fmt: skip
        """Sums of two digits, answers "0" to "18" of normal logits.

        Args:
            shares: how often each style is used at first. right: the correct answer's probability in each style.
            row: further columns of every row.
        """
        g = generator(seed, "arithmetic")
        pairs = torch.randint(0, 10, (questions, 2), generator=g)
        content = torch.randn(questions, len(styles), 19, generator=g)
        at = torch.arange(questions), slice(None), pairs.sum(-1)
        content[at] = -torch.inf
        content[at] = content.logsumexp(-1) + torch.tensor(right).logit()
        rows = [{"answer": str(a + b), "question": f"{a} + {b} =", **row} for a, b in pairs.tolist()]
        return cls(rows, styles, [str(n) for n in range(19)], torch.tensor(shares).log(), content)

    def text(self, style: int, answer: int) -> str:
        return self.styles[style].template.format(self.answers[answer])

    def rewards(self, reward: Reward) -> Tensor:
        """Of every question, style and answer, [Q,S,A]."""
        return torch.tensor([
            [[reward(self.text(s, a), row, style.ended) for a in range(len(self.answers))]
             for s, style in enumerate(self.styles)] for row in self.rows
        ])  # fmt: skip

    def measured(self, start: Answering) -> dict[str, float]:
        """Accuracy of a drawn answer, entropy of answers, KL to ``start`` in nats, and the share of the first style."""
        logps, style = log_probs(self.content), log_probs(self.style)
        p = (style[:, None] + logps).exp().sum(1)  # [Q,A]
        labels = torch.tensor([self.answers.index(str(row["answer"])) for row in self.rows])
        told = {"accuracy": p.gather(-1, labels[:, None]).mean(), "entropy": -(p * p.log()).sum(-1).mean()}
        told |= {"kl": self._kl(style, logps, start), "style": style.exp()[0]}
        return {name: float(value) for name, value in told.items()}

    @staticmethod
    def _kl(style: Tensor, logps: Tensor, start: Answering) -> Tensor:
        by_style = (logps.exp() * (logps - log_probs(start.content))).sum(-1).mean(0)
        return (style.exp() * (style - log_probs(start.style) + by_style)).sum()

    def reinforced(
        self, reward: Reward, *, steps: int, lr: float = 1.0, group: int = 8, kl: float = 0.0, seed: int = 0
    ) -> Answering:
        """After ``steps`` of group-relative policy gradient on all questions; ``path`` measures every step.

        Advantages are (R - mean) / (std + 1e-4) of ``group`` answers a question; ``kl`` weighs the exact KL to here.
        """
        table, g, path = self.rewards(reward), generator(seed, "reinforced"), [self.measured(self)]
        style, content, q = self.style.clone(), self.content.clone(), torch.arange(len(self.rows))[:, None]
        now = self
        for _ in range(steps):
            style.requires_grad_(), content.requires_grad_()
            first, second = log_probs(style), log_probs(content)
            s = torch.multinomial(first.detach().exp().expand(len(q), -1), group, replacement=True, generator=g)
            a = torch.multinomial(second.detach().exp().flatten(0, 1), group, replacement=True, generator=g)
            a = a.view(len(q), -1, group)[q, s, torch.arange(group)]  # [Q,group], each from the style drawn
            r = table[q, s, a]
            advantages = (r - r.mean(-1, keepdim=True)) / (r.std(-1, keepdim=True) + 1e-4)
            loss = -(advantages * (first[s] + second[q, s, a])).mean()
            if kl:
                loss = loss + kl * self._kl(first, second, self)
            slopes = torch.autograd.grad(loss, (style, content))
            # a step is a sum over questions: the style, which they share, learns fastest, as a habit does
            style, content = (z.detach() - lr * len(q) * slope for z, slope in zip((style, content), slopes))
            now = replace(self, style=style, content=content)
            path.append(now.measured(self))
        return replace(now, path=tuple(path))
