"""Every random outcome of a method, one after the other: its output distribution, exactly."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.kernels.choice import Chooser

T = TypeVar("T", bound=Hashable)


class _Replay(Chooser):
    """Follows a list of decisions, takes the first possible branch after its end, and notes what else there was."""

    def __init__(self, decisions: list[int]) -> None:
        super().__init__()
        self.decisions, self.options, self.probability = decisions, list[list[int]](), 1.0

    def _decide(self, weights: list[float]) -> int:
        at = len(self.options)
        possible = [i for i, w in enumerate(weights) if w > 0]
        if at == len(self.decisions):
            self.decisions.append(possible[0])
        taken = self.decisions[at]
        self.options.append(possible)
        self.probability *= weights[taken] / sum(weights)
        return taken

    def uniform(self) -> float:
        raise refuse("enumeration", "uniform", "left to categorical, accept or index", "a call", "draw through those")

    def categorical(self, probs: Tensor) -> int:
        return self._decide(probs.double().tolist())

    def accept(self, probability: float) -> bool:
        p = min(max(probability, 0.0), 1.0)
        return self._decide([1 - p, p]) == 1

    def index(self, n: int) -> int:
        return self._decide([1.0 / n] * n)


def exact_distribution(method: Callable[[Chooser], T], *, limit: int = 1_000_000) -> dict[T, float]:
    r"""Output -> probability, :math:`P(y) = \sum_{\omega : f(\omega) = y} \prod_i p(\omega_i)`, over all outcomes.

    ``method`` is run once for every path through its random choices (branches of probability 0 left out) and must
    take all of them from the chooser; it starts afresh each time. Refused beyond ``limit`` paths.
    """
    found: dict[T, float] = {}
    decisions: list[int] = []
    for _ in range(limit):
        replay = _Replay(list(decisions))
        output = method(replay)
        found[output] = found.get(output, 0.0) + replay.probability
        decisions = replay.decisions
        while decisions:  # the next path in depth-first order
            later = [o for o in replay.options[len(decisions) - 1] if o > decisions[-1]]
            decisions.pop()
            if later:
                decisions.append(later[0])
                break
        if not decisions:
            return found
    raise refuse("exact_distribution", "method", f"one with at most {limit} random paths", "more", "make it smaller")
