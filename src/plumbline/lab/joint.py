"""Distributions over whole short sequences, small enough to list: what an any-order sampler must reproduce."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from math import prod

import torch
from torch import Tensor

from plumbline.kernels.seeds import generator

Law = dict[tuple[int, ...], float]


class JointTable:
    """A joint distribution of L tokens below V, float64 ``[V] * L``; id V is the mask. A model of any order at once.

    Attributes:
        probs: [V] * L. vocab: V. length: L. mask: the mask's id, V. calls: how often either model form was asked.
    """

    def __init__(self, probs: Tensor) -> None:
        self.probs = probs.double() / probs.double().sum()
        self.vocab, self.length, self.mask, self.calls = probs.shape[0], probs.dim(), probs.shape[0], 0

    @classmethod
    def random(cls, vocab: int, length: int, *, scale: float = 2.0, seed: int = 0) -> JointTable:
        """Normal log-probabilities of standard deviation ``scale``: every position depends on every other."""
        g = generator(seed, "JointTable", vocab, length)
        logits = scale * torch.randn(vocab**length, generator=g, dtype=torch.float64)
        return cls(torch.softmax(logits, 0).view([vocab] * length))

    def conditional(self, known: Mapping[int, int], position: int) -> Tensor:
        """Probabilities [V] of the token at ``position`` given the tokens at other positions."""
        table = self.probs
        for at, token in known.items():
            table = table.narrow(at, token, 1)
        return (p := table.sum([d for d in range(self.length) if d != position])) / p.sum()

    def _logits(self, known: Mapping[int, int], position: int) -> Tensor:
        # the mask itself gets a large logit: a sampler must forbid it
        return torch.cat([self.conditional(known, position).log(), torch.ones(1, dtype=torch.float64)])

    def any_order(self, tokens: Tensor, content_mask: Tensor, targets: Tensor) -> Tensor:
        """Logits [k, V + 1] of ``targets`` [k], each given the ``tokens`` [1, L] that its row of the mask shows it."""
        self.calls += 1
        seen = [{j: int(tokens[0, j]) for j in range(self.length) if content_mask[t, j]} for t in targets.tolist()]
        return torch.stack([self._logits(s, t) for s, t in zip(seen, targets.tolist(), strict=True)])

    def masked(self, x: Tensor) -> Tensor:
        """Logits [B, L, V + 1] at every position, given the unmasked others of ``x`` [B, L]."""
        self.calls += 1
        rows = []
        for row in x.tolist():
            known = {i: t for i, t in enumerate(row) if t != self.mask}
            rows.append([self._logits({i: t for i, t in known.items() if i != at}, at) for at in range(self.length)])
        return torch.stack([torch.stack(row) for row in rows])

    def law(self) -> Law:
        """Sequence -> probability."""
        every = itertools.product(range(self.vocab), repeat=self.length)
        return {s: float(self.probs[s]) for s in every}


def random_conditionals(vocab: int, length: int, *, scale: float = 2.0, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """``x [B, L] -> logits [B, L, V + 1]``, one random row a partial sequence: conditionals of no joint, as a net's."""
    g = generator(seed, "random_conditionals", vocab, length)
    table = scale * torch.randn((vocab + 1) ** length, length, vocab + 1, generator=g, dtype=torch.float64)
    places = (vocab + 1) ** torch.arange(length)
    return lambda x: table[(x * places).sum(-1)]


def total_variation(p: Mapping[tuple[int, ...], float], q: Mapping[tuple[int, ...], float]) -> float:
    """Half the summed absolute difference of two laws."""
    return sum(abs(p.get(s, 0.0) - q.get(s, 0.0)) for s in {*p, *q}) / 2


def _states(logits_fn: Callable[[Tensor], Tensor], vocab: int, length: int) -> tuple[Tensor, Tensor]:
    """All partial sequences [S, L] and the probabilities [S, L, V] that the net gives at each."""
    states = torch.tensor(list(itertools.product(range(vocab + 1), repeat=length)))
    return states, torch.softmax(logits_fn(states)[..., :vocab].double(), -1)


def ancestral_law(logits_fn: Callable[[Tensor], Tensor], vocab: int, length: int, keep: Iterable[float]) -> Law:
    r"""Law of masked diffusion in discrete steps, from all masked, by dynamic programming over partial sequences.

    In each step a masked position stays masked with probability ``keep`` (the last should be 0), otherwise it takes a
    token from the net's probabilities at the state before the step, independently of the others.
    """
    states, probs = _states(logits_fn, vocab, length)
    onehot = torch.nn.functional.one_hot(states, vocab + 1).double()  # [S, L, V + 1]
    hidden = (states == vocab)[..., None]
    now = (states == vocab).all(-1).double()
    for stay in keep:
        moved = torch.cat([(1 - stay) * probs, torch.full_like(probs[..., :1], stay)], -1)
        factor = torch.where(hidden, moved, onehot)
        step = prod(factor[:, at, states[:, at]] for at in range(length))  # [S, S]
        now = now @ step
    return {tuple(s): float(p) for s, p in zip(states.tolist(), now, strict=True) if vocab not in s}


def any_order_law(logits_fn: Callable[[Tensor], Tensor], vocab: int, length: int) -> Law:
    r"""Law of filling one uniformly chosen masked position at a time: the mean over orders of the product of rows."""
    states, probs = _states(logits_fn, vocab, length)
    at = {tuple(s): p for s, p in zip(states.tolist(), probs, strict=True)}
    law: Law = {(vocab,) * length: 1.0}
    for left in range(length, 0, -1):
        after: Law = {}
        for state, weight in law.items():
            for i in (i for i, t in enumerate(state) if t == vocab):
                for token in range(vocab):
                    filled = (*state[:i], token, *state[i + 1 :])
                    after[filled] = after.get(filled, 0.0) + weight / left * float(at[state][i, token])
        law = after
    return law


def listed(sequences: Mapping[tuple[int, ...], float], vocab: int, start: int) -> Callable[[Tensor], Tensor]:
    """Next-token logits [N, V] after ids [N, T] of a distribution over listed sequences that begin at ``start``."""

    def logits(ids: Tensor) -> Tensor:
        out = torch.full((len(ids), vocab), -torch.inf, dtype=torch.float64)
        for row, prefix in enumerate(ids[:, start:].tolist()):
            mass = torch.zeros(vocab, dtype=torch.float64)
            for sequence, p in sequences.items():
                if list(sequence[: len(prefix)]) == prefix and len(sequence) > len(prefix):
                    mass[sequence[len(prefix)]] += p
            out[row] = mass.log()
        return out

    return logits
