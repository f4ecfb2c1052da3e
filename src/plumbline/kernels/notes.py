"""Numbers that a loss notes by the way (a clip fraction, a mean weight) for whoever listens; it returns its loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_heard: ContextVar[dict[str, list[float]] | None] = ContextVar("notes", default=None)


def note(**values: Tensor | float) -> None:
    """Note numbers by name; of a tensor, its mean. Costs nothing where nobody listens."""
    heard = _heard.get()
    if heard is None:
        return
    for name, value in values.items():
        number = float(value.detach().float().mean()) if isinstance(value, Tensor) else float(value)
        heard.setdefault(name, []).append(number)


@contextmanager
def noted() -> Iterator[dict[str, list[float]]]:
    """Listen: name -> every number noted inside, in order."""
    found: dict[str, list[float]] = {}
    token = _heard.set(found)
    try:
        yield found
    finally:
        _heard.reset(token)
