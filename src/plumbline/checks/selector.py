"""Properties of every selector: a choice that exists, shares that add up, no favour for order, inputs as they were."""

from __future__ import annotations

import inspect
import math
import typing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.checks.common import expect
from plumbline.core.declare import Card
from plumbline.kernels.seeds import rng

N = 12


def _types(card: Card) -> list[Any]:
    """Samples and Selection, as the selector's own signature names them: they live on a floor above the checks'."""
    hints = typing.get_type_hints(inspect.unwrap(card.fn))
    named = [hints.get(name) for name in (*card.roles[:1], "return")]
    told = f"{card.name}(samples: Samples, *, ...) -> Selection"
    expect(len(named) == 2 and all(isinstance(t, type) for t in named), card, f"write its signature as {told}")
    return named


def _samples(card: Card, seed: int = 0) -> Any:
    """12 samples of 3 answers (5, 4 and 2 times) and one without an answer; every number is drawn, so none ties."""
    random = rng(seed, "checks", card.name)
    given = random.permutation(np.array([*"aaaaabbbbcc", None], dtype=object))
    lengths = random.integers(3, 20, N)
    return _types(card)[0](
        tuple(f"text {i} says {a}" for i, a in enumerate(given)), (), tuple(given),
        -random.gamma(2.0, 0.2, N) * lengths, lengths, random.gamma(9.0, 1.0, N), random.standard_normal(N), "asked",
    )  # fmt: skip


def _taken(samples: Any, order: NDArray[np.int64] | list[int]) -> Any:
    """The samples at ``order``, in that order."""
    arrays = {k: getattr(samples, k)[order] for k in ("logps", "lengths", "self_certainty", "rewards")}
    texts, answers = ([getattr(samples, k)[i] for i in order] for k in ("texts", "answers"))
    return replace(samples, texts=tuple(texts), answers=tuple(answers), **arrays)


def selects(card: Card) -> None:
    """The chosen answer is the chosen sample's, and every answer that was given has a share; they add up to 1."""
    samples = _samples(card)
    chosen = card.fn(samples)
    at = chosen.index
    expect(isinstance(chosen, _types(card)[1]), card, f"must return a Selection, got {type(chosen).__name__}")
    expect(at is not None and 0 <= at < N, card, f"must choose one of {N} samples, got index {at}")
    expect(chosen.answer == samples.answers[at or 0], card, f"answer {chosen.answer!r} is not that of sample {at}")
    expect(set(chosen.confidence) <= {"a", "b", "c"}, card, f"confidence in what nobody said: {chosen.confidence}")
    expect(chosen.answer in chosen.confidence, card, "no confidence for the chosen answer")
    shares = list(chosen.confidence.values())
    good = min(shares) >= 0 and math.isclose(sum(shares), 1, abs_tol=1e-9)
    expect(good, card, f"confidences must be shares that add up to 1, got {shares}")


def fair_to_order(card: Card) -> None:
    """The same samples in another order: the same answer and the same confidences."""
    for seed in range(4):
        samples = _samples(card, seed)
        first = card.fn(samples)
        again = card.fn(_taken(samples, rng(seed, "order").permutation(N)))
        expect(again.answer == first.answer, card, "another order of the samples chose another answer")
        off = max(abs(again.confidence.get(a, -1) - p) for a, p in first.confidence.items())
        expect(off < 1e-6, card, f"another order of the samples moved a confidence by {off:.3g}")


def without_answers(card: Card) -> None:
    """A sample without an answer is not chosen while another has one; where none has, there is no answer."""
    samples = _samples(card)
    silent, said = samples.answers.index(None), samples.answers.index("c")
    chosen = card.fn(_taken(samples, [silent, said]))
    expect(chosen.index == 1 and chosen.answer == "c", card, "it chose a sample without an answer over one with")
    none = card.fn(_taken(samples, [silent, silent]))
    expect(none.answer is None and not none.confidence, card, f"no sample has an answer, yet it returned {none}")


def pure(card: Card) -> None:
    """The same samples twice give the same, and a single sample is chosen."""
    samples = _samples(card)
    first, second = card.fn(samples), card.fn(samples)
    expect(first == second, card, f"the same samples gave {first} and then {second}")
    kept = _samples(card)
    same = all(np.array_equal(getattr(samples, k), getattr(kept, k)) for k in ("logps", "self_certainty", "rewards"))
    expect(same, card, "it changed the samples")
    alone = card.fn(_taken(samples, [samples.answers.index("b")]))
    expect(alone.index == 0 and alone.answer == "b", card, f"of a single sample it chose {alone}")


CHECKS = (selects, fair_to_order, without_answers, pure)
