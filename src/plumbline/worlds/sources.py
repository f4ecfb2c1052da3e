"""Sources of symbols whose next-token distribution and entropy rate are known exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from plumbline.core.errors import refuse
from plumbline.kernels.seeds import rng


class Markov:
    r"""A stationary first-order Markov chain over ``symbols`` symbols with Dirichlet-distributed rows.

    .. math:: H = -\sum_i \pi_i \sum_j P_{ij} \log P_{ij}, \qquad \pi P = \pi
    """

    def __init__(self, symbols: int = 16, *, seed: int = 0, concentration: float = 0.3) -> None:
        if symbols < 2:
            raise refuse("Markov", "symbols", "an integer >= 2", symbols, "pass symbols=16")
        self.transition = rng(seed, "markov").dirichlet(np.full(symbols, concentration), size=symbols)  # [V, V]
        # A little uniform mass keeps the chain irreducible, so that its stationary distribution is unique.
        self.transition = 0.99 * self.transition + 0.01 / symbols
        system = np.vstack([self.transition.T - np.eye(symbols), np.ones(symbols)])
        self.stationary = np.linalg.lstsq(system, np.append(np.zeros(symbols), 1.0), rcond=None)[0]  # [V]

    def next_distribution(self, prefix: Sequence[int] = ()) -> np.ndarray:
        """Probabilities [V] of the symbol after ``prefix``; the stationary ones when it is empty."""
        return self.transition[prefix[-1]] if len(prefix) else self.stationary

    def entropy_rate(self) -> float:
        """Entropy per symbol in nats."""
        return float(-(self.stationary[:, None] * self.transition * np.log(self.transition)).sum())

    def sample(self, n: int, length: int, seed: int = 0) -> np.ndarray:
        """``n`` stretches of the stationary chain: integers [n, length]."""
        uniform = rng(seed, "markov", "sample").random((length, n))
        cumulative = np.cumsum(self.transition, axis=1)
        out = np.empty((n, length), dtype=np.int64)
        out[:, 0] = np.searchsorted(np.cumsum(self.stationary)[:-1], uniform[0], side="right")
        for t in range(1, length):
            out[:, t] = (cumulative[out[:, t - 1], :-1] <= uniform[t][:, None]).sum(axis=1)
        return out


Rules = Mapping[str, Sequence[tuple[float, tuple[str, ...]]]]

SENTENCES: Rules = {
    "S": ((1.0, ("NP", "VP", ".")),),
    "NP": ((0.6, ("DET", "N")), (0.3, ("DET", "ADJ", "N")), (0.1, ("DET", "N", "PP"))),
    "PP": ((0.5, ("near", "NP")), (0.3, ("behind", "NP")), (0.2, ("with", "NP"))),
    "VP": ((0.6, ("V", "NP")), (0.4, ("walks", "PP"))),
    "DET": ((0.7, ("the",)), (0.3, ("a",))),
    "ADJ": tuple((0.2, (w,)) for w in ("old", "small", "red", "quiet", "tall")),
    "N": tuple((0.125, (w,)) for w in ("fox", "house", "river", "tree", "child", "bridge", "lamp", "stone")),
    "V": tuple((0.25, (w,)) for w in ("sees", "finds", "likes", "carries")),
}


class Grammar:
    r"""Independent sentences of a probabilistic context-free grammar, one after the other.

    Rules may recurse but not to the left, and every sentence must have one derivation and end where no longer one goes
    on (a full stop does it). The entropy of a sentence is then that of its derivation, and with branching matrix M,

    .. math:: h = (I - M)^{-1} h_{rule}, \quad \ell = (I - M)^{-1} \ell_{terminal}, \quad H = h_S / \ell_S
    """

    def __init__(self, rules: Rules = SENTENCES, *, start: str = "S") -> None:
        self.rules, self.start = rules, start
        for name, options in rules.items():
            if abs(sum(p for p, _ in options) - 1) > 1e-9:
                raise refuse("Grammar", name, "rules whose probabilities add up to 1", options, "rescale them")
        symbols = {symbol for options in rules.values() for _, body in options for symbol in body}
        self.vocab = tuple(sorted(symbols - set(rules)))
        self._index = {word: i for i, word in enumerate(self.vocab)}

    def next_distribution(self, prefix: Sequence[int] = ()) -> np.ndarray:
        """Probabilities [V] of the word after ``prefix`` (word numbers), exact by following every open derivation.

        Raises:
            InputError: the grammar cannot write ``prefix``.
        """
        states = self._expand({(self.start,): 1.0})
        for word in prefix:
            left: dict[tuple[str, ...], float] = {}
            for (first, *rest), p in states.items():
                if first == self.vocab[word]:
                    # An emptied stack is the end of a sentence; the next one begins.
                    left[tuple(rest) or (self.start,)] = left.get(tuple(rest) or (self.start,), 0.0) + p
            total = sum(left.values())
            if not total:
                raise refuse("Grammar", "prefix", "words that the grammar can write", prefix, "see Grammar.sample")
            states = self._expand({stack: p / total for stack, p in left.items()})
        out = np.zeros(len(self.vocab))
        for stack, p in states.items():
            out[self._index[stack[0]]] += p
        return out

    def entropy_rate(self) -> float:
        """Entropy per word in nats."""
        names = list(self.rules)
        branching = np.zeros((len(names), len(names)))
        entropy, length = np.zeros(len(names)), np.zeros(len(names))
        for i, name in enumerate(names):
            for p, body in self.rules[name]:
                entropy[i] -= p * np.log(p)
                for symbol in body:
                    if symbol in self.rules:
                        branching[i, names.index(symbol)] += p
                    else:
                        length[i] += p
        total = np.linalg.solve(np.eye(len(names)) - branching, np.stack([entropy, length], axis=1))
        h, words = total[names.index(self.start)]
        return float(h / words)

    def sample(self, n: int, length: int, seed: int = 0) -> np.ndarray:
        """``n`` texts of ``length`` words, each beginning with a sentence: integers [n, length]."""
        random = rng(seed, "grammar", "sample")
        out = np.empty((n, length), dtype=np.int64)
        for row in out:
            words: list[int] = []
            while len(words) < length:
                words += [self._index[word] for word in self._sentence(random)]
            row[:] = words[:length]
        return out

    def text(self, words: Sequence[int]) -> str:
        """Word numbers as running text."""
        return " ".join(self.vocab[word] for word in words).replace(" .", ".")

    def sentences(self, n: int, seed: int = 0) -> list[str]:
        """``n`` independent sentences as text."""
        random = rng(seed, "grammar", "sentences")
        return [" ".join(self._sentence(random)).replace(" .", ".") for _ in range(n)]

    def _expand(self, states: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
        """Apply rules to the first symbol of every stack until it is a word."""
        out: dict[tuple[str, ...], float] = {}
        todo = list(states.items())
        while todo:
            stack, p = todo.pop()
            if stack[0] in self.rules:
                todo += [((*body, *stack[1:]), p * q) for q, body in self.rules[stack[0]]]
            else:
                out[stack] = out.get(stack, 0.0) + p
        return out

    def _sentence(self, random: np.random.Generator) -> list[str]:
        words: list[str] = []
        stack = [self.start]
        while stack:
            symbol = stack.pop()
            if symbol in self.rules:
                options = self.rules[symbol]
                chosen = min(
                    int(np.searchsorted(np.cumsum([p for p, _ in options]), random.random())), len(options) - 1
                )
                stack += reversed(options[chosen][1])
            else:
                words.append(symbol)
        return words
