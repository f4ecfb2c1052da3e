"""What every world writes: documents that say which facts they state, and invented words that spell nothing real."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np

_ONSETS = ("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "gr", "st", "tr")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("l", "n", "r", "s", "k", "m")


@dataclass(frozen=True)
class Document:
    """One training text.

    ``facts`` holds the id of every fact the text states, once per statement, so exposures are counted by adding up.
    """

    text: str
    kind: str
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A prompt with its one right continuation, and the short answer that a grader looks for in it."""

    kind: str
    prompt: str
    completion: str
    answer: str

    @property
    def text(self) -> str:
        return self.prompt + self.completion


def invent(random: np.random.Generator, n: int, *, syllables: int = 2, taken: Container[str] = ()) -> list[str]:
    """``n`` distinct pronounceable words of ``syllables`` syllables that are not in ``taken``."""
    words: dict[str, None] = {}
    while len(words) < n:
        onsets = random.integers(len(_ONSETS), size=syllables)
        vowels = random.integers(len(_VOWELS), size=syllables)
        word = "".join(_ONSETS[o] + _VOWELS[v] for o, v in zip(onsets, vowels, strict=True))
        word += _CODAS[random.integers(len(_CODAS))]
        if word not in taken:
            words[word] = None
    return list(words)


def pick(random: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    """One of ``options``, uniformly."""
    return options[int(random.integers(len(options)))]


def draw(random: np.random.Generator, options: tuple[str, ...] | list[str], n: int) -> list[str]:
    """``n`` distinct ``options`` in random order."""
    return [options[i] for i in random.permutation(len(options))[:n]]
