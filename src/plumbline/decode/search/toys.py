"""Outputs that can all be listed, of a tiny model or of a contaminated source: what a search should have found."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from plumbline.kernels.logps import label_logps
from plumbline.kernels.seeds import rng
from plumbline.lab.joint import listed
from plumbline.lab.tiny import tiny

EOS, LONGEST = 2, 4
Tokens = tuple[int, ...]


class Toy:
    """A tiny Llama of 5 tokens, all its outputs of up to 4 tokens after one prompt, and a condition on them.

    An output has the attribute when it ended with the end token, holds at least two tokens before it and repeats none
    at once. :meth:`attribute` is the exact log p(a | x, y_1:t), by summing over the completions.
    """

    def __init__(self, seed: int) -> None:
        self.model = tiny("llama", vocab=5, seed=seed)
        self.prompt = torch.tensor([[1, 3 + seed % 2]])
        others = [t for t in range(5) if t != EOS]
        bodies = [b for n in range(LONGEST) for b in itertools.product(others, repeat=n)]
        every = [(*b, EOS) for b in bodies] + list(itertools.product(others, repeat=LONGEST))
        self.logps = dict(zip(every, self._score(every), strict=True))
        self._mass: dict[Tokens, list[float]] = {}
        for y, logp in self.logps.items():
            for n in range(len(y) + 1):
                both = self._mass.setdefault(y[:n], [0.0, 0.0])
                both[0] += math.exp(logp) * self.holds(y)
                both[1] += math.exp(logp)

    @staticmethod
    def holds(y: Tokens) -> bool:
        return len(y) >= 3 and y[-1] == EOS and all(a != b for a, b in itertools.pairwise(y))

    @torch.no_grad()
    def _score(self, every: list[Tokens]) -> list[float]:
        start = self.prompt.shape[1]
        ids = torch.tensor([[*self.prompt[0].tolist(), *y, *[0] * (LONGEST - len(y))] for y in every])
        logps = label_logps(self.model(ids).logits[:, start - 1 : -1].double(), ids[:, start:])
        real = torch.arange(LONGEST) < torch.tensor([len(y) for y in every])[:, None]
        return logps.where(real, 0.0).sum(1).tolist()

    def attribute(self, ids: Tensor) -> Tensor:
        """Exact log p(a | ids) [N] of prompts with a part of an output [N, T]."""
        pairs = [self._mass[tuple(y)] for y in ids[:, self.prompt.shape[1] :].tolist()]
        return torch.tensor([math.log(a / p) if a > 0 else -math.inf for a, p in pairs], dtype=torch.float64)

    def mode(self) -> Tokens:
        """The likeliest output with the attribute."""
        return max((y for y in self.logps if self.holds(y)), key=self.logps.__getitem__)

    def search(self, sampler: Callable[..., Any], **options: Any) -> list[Tokens]:
        """The outputs that a sampler returns, up to their end token, best first."""
        ids = self.model.generate(self.prompt, custom_generate=sampler, max_new_tokens=LONGEST, do_sample=False,
                                  **options)  # fmt: skip
        rows = ids[:, self.prompt.shape[1] :].tolist()
        return [tuple(y[: y.index(EOS) + 1] if EOS in y else y) for y in rows]

    def best(self, outputs: list[Tokens]) -> float:
        """log p of the likeliest of the outputs that has the attribute, -inf if none has."""
        return max((self.logps[y] for y in outputs if self.holds(y)), default=-math.inf)


def clean_source(seed: int, size: int = 12) -> dict[Tokens, float]:
    """Random outputs of 2 to 5 tokens over 3 .. 6 with their end token, and their probabilities."""
    stream = rng(seed, "clean_source")
    texts = {tuple(int(t) for t in stream.integers(3, 7, stream.integers(2, 6))) for _ in range(size)}
    weights = stream.dirichlet([1.0] * len(texts))
    return {(*text, EOS): float(w) for text, w in zip(sorted(texts), weights, strict=True)}


def contaminated(clean: dict[Tokens, float], share: float, start: int) -> LogitsProcessorList:
    """A rule that makes any model of 7 tokens this source: (1 - share) clean + share of nothing but the end token."""
    mixed = {text: (1 - share) * p for text, p in clean.items()} | {(EOS,): share}
    after = listed(mixed, 7, start)
    return LogitsProcessorList([lambda ids, logits: after(ids).to(logits)])
