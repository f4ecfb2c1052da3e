"""How much of a teacher's weight is left as training goes on: functions of ``progress`` in [0, 1) for ``salt``."""

from __future__ import annotations

from collections.abc import Callable

from plumbline.core.errors import refuse

Schedule = Callable[[float], float]


def step(end: float) -> Schedule:
    """All of it before ``end`` (a share of the run), none after."""
    _check("step", end)
    return lambda progress: float(progress < end)


def linear(end: float) -> Schedule:
    """From all of it at the start down to none at ``end``, along a line."""
    _check("linear", end)
    return lambda progress: max(0.0, 1 - progress / end)


def constant(progress: float) -> float:
    """All of it to the end: ordinary distillation."""
    return 1.0


def _check(where: str, end: float) -> None:
    if not 0 < end <= 1:
        raise refuse(where, "end", "a share of the run in (0, 1]", end, "pass 0.17, or leave the teacher out")
