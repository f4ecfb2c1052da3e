"""Properties that every method of a kind must have; shipped, so that others can run them on theirs.

``for check in checks_of(card): check(card)`` raises :class:`CheckFailed` with what was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from plumbline.checks.common import COMMON, CheckFailed
from plumbline.core.declare import Card

__all__ = ["CheckFailed", "checks_of"]


def checks_of(card: Card) -> list[Callable[[Card], None]]:
    """The checks of this card: those of every method, then those of its kind."""
    return [*COMMON, *import_module(card.kind.checks).CHECKS]
