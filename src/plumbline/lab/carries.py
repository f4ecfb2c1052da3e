"""Two-digit addition as a table: a policy that writes each number given those it follows from, and forgets carries."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from plumbline.core.scored import Scored
from plumbline.kernels.divergence import log_probs
from plumbline.kernels.seeds import generator

SIZE = 20  # numbers 0 .. 19
_TEXT = re.compile(r"(\d+)\+(\d+)=(\d+), write (\d+) carry (\d+)\.\nStep 2: (\d+)\+(\d+)\+(\d+)=(\d+)\.")


def problems(seed: int, n: int) -> list[dict[str, Any]]:
    """Rows with a prompt and its two numbers."""
    pairs = torch.randint(10, 100, (n, 2), generator=generator(seed, "carries")).tolist()
    return [{"prompt": f"Add {a} and {b}.\n", "a": a, "b": b} for a, b in pairs]


def states(a: int, b: int, numbers: Sequence[int]) -> list[int]:
    """The row of the table that each of the nine numbers of a solution is drawn from."""
    x0, y0, u, _, c, x1, y1, z, _ = numbers
    keys = [a % 10, 20 + b % 10, 100 + 20 * x0 + y0, 40 + u, 60 + u, a // 10, 20 + b // 10, 80 + c]
    return [*keys, 500 + 20 * (20 * x1 + y1) + z]


def right(a: int, b: int) -> list[int]:
    """The nine numbers of the right solution."""
    u = a % 10 + b % 10
    return [a % 10, b % 10, u, u % 10, u // 10, a // 10, b // 10, u // 10, a // 10 + b // 10 + u // 10]


def text(n: Sequence[int]) -> str:
    """A solution in words."""
    return f"Step 1: {n[0]}+{n[1]}={n[2]}, write {n[3]} carry {n[4]}.\nStep 2: {n[5]}+{n[6]}+{n[7]}={n[8]}."


def untrained(seed: int) -> Tensor:
    """Logits [rows, SIZE]: copies are sure, sums mostly right, carries a guess that leans either way."""
    table = torch.randn(8500, SIZE, generator=generator(seed, "untrained"))
    for digit in range(SIZE):
        table[[digit, 20 + digit, 80 + digit], digit] += 9.0
        table[40 + digit, digit % 10] += 9.0
        table[60 + digit, 2:] -= 9.0
        for other in range(SIZE):
            if digit + other < SIZE:
                table[100 + 20 * digit + other, digit + other] += 6.0
            for carry in range(SIZE):
                if digit + other + carry < SIZE:
                    table[500 + 20 * (20 * digit + other) + carry, digit + other + carry] += 6.0
    return table


class Writer:
    """``generate``, ``judge`` and an ``edit`` that slips where the table itself would, for ``rise``."""

    def __init__(self, table: Tensor, seed: int) -> None:
        self.p, self.g = log_probs(table).exp(), generator(seed, "writer")

    def generate(self, prompt: str, n: int) -> list[str]:
        a, b = map(int, re.findall(r"\d+", prompt))
        found = []
        for _ in range(n):
            numbers = [0] * 9
            for i in range(9):
                numbers[i] = int(torch.multinomial(self.p[states(a, b, numbers)[i]], 1, generator=self.g))
            found.append(text(numbers))
        return found

    def judge(self, solution: str, problem: Mapping[str, Any]) -> bool:
        n = parsed(solution)
        return 10 * n[8] + n[3] == problem["a"] + problem["b"]

    def edit(self, part: str, problem: Mapping[str, Any], before: str, g: torch.Generator | None) -> str | None:
        numbers = right(problem["a"], problem["b"])
        slots = [2, 3, 4] if "carry" in part else [8]
        slot = slots[int(torch.randint(len(slots), (1,), generator=g))]
        p = self.p[states(problem["a"], problem["b"], numbers)[slot]].clone()
        p[numbers[slot]] = 0
        spans = [m.span() for m in re.finditer(r"\d+", part)]
        start, end = spans[slot if "carry" in part else slot - 5]
        return part[:start] + str(int(torch.multinomial(p, 1, generator=g))) + part[end:]


def parsed(solution: str) -> list[int]:
    """The nine numbers of a solution."""
    match = _TEXT.search(solution)
    return [min(int(n), SIZE - 1) for n in match.groups()] if match else [0] * 9


def wrong(row: Mapping[str, str]) -> set[int]:
    """The rows of the table from which a pair's rejected side draws a number that is wrong given what it follows."""
    a, b, n, _, last = _numbers(row, "rejected")
    meant = [a % 10, b % 10, n[0] + n[1], n[2] % 10, n[2] // 10, a // 10, b // 10, n[4], n[5] + n[6] + n[7]]
    return {at for at, is_, is_to_be in zip(states(a, b, n)[:last], n, meant, strict=False) if is_ != is_to_be}


def scored(table: Tensor, row: Mapping[str, str], side: str) -> Scored:
    """One side of a pair row under a table: the numbers of an edited step, or of a whole solution, [1, 9]."""
    a, b, numbers, first, last = _numbers(row, side)
    logps = log_probs(table[states(a, b, numbers)]).gather(-1, torch.tensor(numbers)[:, None])[:, 0]
    place = torch.arange(9)
    return Scored(logps[None], ((first <= place) & (place < last))[None])


def share_on_errors(loss: Callable[..., Tensor], table: Tensor, row: Mapping[str, str]) -> tuple[float, int]:
    """Of a pair loss's gradient: the share that falls on wrong numbers, and over how many contexts it is spread."""
    leaf = table.clone().requires_grad_()
    sides = [scored(t, row, side) for t in (leaf, table) for side in ("chosen", "rejected")]
    (slope,) = torch.autograd.grad(loss(*sides).sum(), leaf)
    size = slope.abs().sum(-1)
    return float(size[sorted(wrong(row))].sum() / size.sum()), int((size > 0).sum())


def _numbers(row: Mapping[str, str], side: str) -> tuple[int, int, list[int], int, int]:
    """The problem, a side's nine numbers, and which of them its row scores: from where, and before where."""
    a, b = map(int, re.findall(r"\d+", row["prompt"]))
    solution = row["initial_reason_steps"] + row[side]
    last = 9 if "Step 2" in solution else 5
    numbers = parsed(solution if last == 9 else solution.rstrip() + "\nStep 2: 0+0+0=0.")
    return a, b, numbers, 5 if "carry" in row["initial_reason_steps"] else 0, last
