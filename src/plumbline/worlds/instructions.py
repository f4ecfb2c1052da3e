"""Tasks whose answer stands in the prompt: copy, reverse, sort, look up, and notes that contradict memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plumbline.kernels.seeds import rng
from plumbline.worlds.people import RELATIONS, Fact
from plumbline.worlds.text import Document, Task, draw, invent, pick

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
WORDS = (
    "fox",
    "house",
    "river",
    "tree",
    "child",
    "bridge",
    "lamp",
    "stone",
    "mint",
    "sage",
    "tea",
    "wind",
    "moss",
    "salt",
)


def arrange(random: np.random.Generator) -> Task:
    """Copy, reverse or sort three to six letters."""
    letters = draw(random, LETTERS, int(random.integers(3, 7)))
    kind, result = (("copy", letters), ("reverse", letters[::-1]), ("sort", sorted(letters)))[int(random.integers(3))]
    answer = " ".join(result)
    return Task(kind, f"{kind.title()}: {' '.join(letters)} ->", f" {answer}.", answer)


def lookup(random: np.random.Generator, *, questions: int = 1) -> Task:
    """Find a letter's word in a fresh random table; all but the last of ``questions`` are answered in the prompt."""
    n = int(random.integers(2, 8))
    pairs = list(zip(draw(random, LETTERS, n), draw(random, WORDS, n), strict=True))
    asked = [pairs[int(random.integers(n))] for _ in range(questions)]
    table = "Table: " + ", ".join(f"{key} {value}" for key, value in pairs) + "."
    solved = [f"Find {key} {value}." for key, value in asked[:-1]]
    key, value = asked[-1]
    return Task("lookup", " ".join([table, *solved, f"Find {key}"]), f" {value}.", value)


def repeat(random: np.random.Generator) -> str:
    """Two to eight letters and words, said over and over: what comes next is what came next before."""
    n = int(random.integers(2, 9))
    return f"Repeat: {' '.join(draw(random, [*LETTERS, *WORDS], n) * (40 // n))}."


def drills(seed: int = 0, n: int = 100) -> list[Document]:
    """``n`` texts of which half are repetitions and half tables with twelve questions: nothing but looking back."""
    random = rng(seed, "drills")
    kinds = (
        (lambda: Document(repeat(random), "repeat")),
        (lambda: Document(lookup(random, questions=12).text, "lookup")),
    )
    return [kinds[int(random.integers(2))]() for _ in range(n)]


def note(random: np.random.Generator, subjects: Sequence[str] = (), *, avoid: dict[tuple[str, str], str]) -> Task:
    """A note about people, and a sentence to finish according to it.

    Args:
        random: the stream.
        subjects: who the note is about; empty for freshly invented people.
        avoid: (subject, relation) -> the value that memory holds; the note says another one.
    """
    relation = RELATIONS[pick(random, list(RELATIONS))]
    n = int(random.integers(2, 4))
    fresh = [f"{a} {b}".title() for a, b in zip(invent(random, n, syllables=1), invent(random, n), strict=True)]
    who = draw(random, list(subjects), n) if subjects else fresh
    said: dict[str, str] = {}
    for subject in who:
        options = [v for v in relation.values if v != avoid.get((subject, relation.name)) and v not in said.values()]
        said[subject] = pick(random, options)
    sentence = pick(random, relation.statements)
    lines = " ".join(f"{sentence.format(s=s)} {v}." for s, v in said.items())
    asked = pick(random, who)
    kind = "contradiction" if subjects else "note"
    start = f"Note: {lines} According to the note, {sentence.format(s=asked)}"
    return Task(kind, start, f" {said[asked]}.", said[asked])


def tasks(seed: int = 0, n: int = 100, *, known: Sequence[Fact] = (), evaluation: bool = False) -> list[Task]:
    """``n`` tasks: three tenths copy, reverse and sort, four tenths tables, three tenths notes (half contradict)."""
    random = rng(seed, "instructions", int(evaluation))
    memory = {(fact.subject, fact.relation): fact.object for fact in known}
    subjects = list(dict.fromkeys(fact.subject for fact in known))
    made = []
    for i in range(n):
        slot = i % 10
        if slot < 3:
            made.append(arrange(random))
        elif slot < 7:
            made.append(lookup(random, questions=1 if evaluation else 12))
        else:
            made.append(note(random, subjects if (i // 10 + slot) % 2 else (), avoid=memory))
    return made


def documents(seed: int = 0, n: int = 100, *, known: Sequence[Fact] = ()) -> list[Document]:
    """``n`` solved tasks, and an eighth as many repetitions.

    A note states no fact of the world: what it says holds in the note alone.
    """
    random = rng(seed, "instructions", "repeat")
    solved = [Document(task.text, task.kind) for task in tasks(seed, n, known=known)]
    return solved + [Document(repeat(random), "repeat") for _ in range(n // 8)]
