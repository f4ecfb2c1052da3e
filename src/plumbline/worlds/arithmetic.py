"""Addition written step by step: units first, each digit with its carry, so every answer can be checked."""

from __future__ import annotations

import numpy as np

from plumbline.kernels.seeds import derive, rng
from plumbline.worlds.text import Document, Task


def held_out(a: int, b: int) -> bool:
    """Whether the pair is kept for evaluation (a random tenth of all pairs); training documents never add it."""
    return derive(0, "held out", a, b) % 10 == 0


def steps(a: int, b: int) -> str:
    r"""The working of ``a + b`` for two-digit numbers.

    .. math:: u = a_0 + b_0, \quad c = \lfloor u / 10 \rfloor, \quad t = a_1 + b_1 + c, \quad a + b = 10 t + u \bmod 10
    """
    units = a % 10 + b % 10
    carry = units // 10
    tens = a // 10 + b // 10 + carry
    return (
        f"{a % 10}+{b % 10}={units}, write {units % 10} carry {carry}. "
        f"{a // 10}+{b // 10}+{carry}={tens}, write {tens}. Answer {a + b}."
    )


def addition(a: int, b: int) -> Task:
    """``a + b`` as a prompt, its working and its answer."""
    return Task("addition", f"Add {a} and {b}.", f" {steps(a, b)}", str(a + b))


def chain(a: int, b: int, c: int) -> Task:
    """``a + b + c`` in two additions; ``a + b`` must have two digits."""
    first = a + b
    return Task(
        "chain",
        f"Add {a} and {b} and {c}.",
        f" First {a} and {b}. {steps(a, b)} Then {first} and {c}. {steps(first, c)}",
        str(first + c),
    )


def tasks(seed: int = 0, n: int = 100, *, evaluation: bool = False) -> list[Task]:
    """``n`` problems, four two-number additions to one of three numbers; ``evaluation`` draws the held-out pairs."""
    random = rng(seed, "arithmetic", int(evaluation))

    def pair(high: int) -> tuple[int, int]:
        while True:
            a, b = (int(v) for v in random.integers(10, high, size=2))
            if held_out(a, b) == evaluation:
                return a, b

    return [addition(*pair(100)) if i % 5 else _chain(random, *pair(50), evaluation) for i in range(n)]


def _chain(random: np.random.Generator, a: int, b: int, evaluation: bool) -> Task:
    while True:
        c = int(random.integers(10, 100))
        if held_out(a + b, c) == evaluation:
            return chain(a, b, c)


def documents(seed: int = 0, n: int = 100) -> list[Document]:
    """``n`` solved problems."""
    return [Document(task.text, task.kind) for task in tasks(seed, n)]
