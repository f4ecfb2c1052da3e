"""Steps of a solution: which tokens belong to which, where one first goes wrong, and pairs for step-wise DPO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plumbline.core.errors import refuse

Step = Any  # text, or a list of ids


def numbered(ends: Tensor, mask: Tensor) -> Tensor:
    """Number of the step that each token belongs to, from 1; 0 where the mask is False.

    Args:
        ends: [B,T] bool, the last token of a step (a newline, say). mask: [B,T], the tokens of the solution.

    Returns:
        [B,T] long.
    """
    ended = (ends & mask).long()
    return torch.where(mask, ended.cumsum(-1) - ended + 1, 0)


class StepPair(NamedTuple):
    """Prefer ``chosen`` to ``rejected`` after ``prefix``: row ``row``'s step ``step``, counted from 1."""

    row: int
    step: int
    prefix: tuple[Step, ...]
    chosen: Step
    rejected: Step


def first_pit(values: Sequence[float], low: float | None = None) -> int | None:
    """The first wrong step of a solution, counted from 1; None where no step lowers the value.

    Args:
        values: V_0 .. V_n, the chance of success before the first and after every step.
        low: the first step after which V < low; where left out, the step that loses most (the first of equals).
    """
    drops = [after - before for before, after in zip(values, values[1:])]
    if low is not None:
        return next((i for i, v in enumerate(values[1:], 1) if v < low <= values[i - 1]), None)
    return 1 + drops.index(min(drops)) if drops and min(drops) < 0 else None


def step_pairs(
    solutions: Sequence[Sequence[Step]], values: Sequence[Sequence[float]],
    better: Callable[[int, tuple[Step, ...]], Step | None], *, low: float | None = None,
) -> list[StepPair]:  # fmt: skip
    """Pairs for step-wise DPO: each wrong solution's first wrong step against one that leads to success.

    Args:
        solutions: the steps of every wrong solution.
        values: V_0 .. V_n of each, estimated with the policy that training starts from.
        better: ``(row, prefix) -> step``: the next step of a rollout from this prefix that succeeds, or None.
        low: as in ``first_pit``.

    Returns:
        A pair per solution that has both a wrong step and a better one; put them in the streams ``chosen`` and
        ``rejected`` with the prefix as prompt.

    Raises:
        InputError: a solution of n steps without n + 1 values.
    """
    pairs = []
    for row, (steps, v) in enumerate(zip(solutions, values, strict=True)):
        if len(v) != len(steps) + 1:
            got = f"{len(v)} for {len(steps)} steps in row {row}"
            raise refuse("step_pairs", "values", "one more than steps, V_0 first", got, "value the bare prompt too")
        pit = first_pit(v, low)
        prefix = tuple(steps[: pit - 1]) if pit is not None else ()
        chosen = better(row, prefix) if pit is not None else None
        if pit is not None and chosen is not None and chosen != steps[pit - 1]:
            pairs.append(StepPair(row, pit, prefix, chosen, steps[pit - 1]))
    return pairs
