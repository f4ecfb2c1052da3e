"""Training: rows to batches, models to roles, and one trainer that runs any loss over them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plumbline.train.engines import Answers, Engine
    from plumbline.train.fitting import Trained, fit
    from plumbline.train.rollouts import Rollouts, graded
    from plumbline.train.rows import read
    from plumbline.train.stored import precompute
    from plumbline.train.watching import watch

_HOMES = {
    "engines": ("Answers", "Engine"),
    "fitting": ("Trained", "fit"),
    "rollouts": ("Rollouts", "graded"),
    "rows": ("read",),
    "stored": ("precompute",),
    "watching": ("watch",),
}
__all__ = ["Answers", "Engine", "Rollouts", "Trained", "fit", "graded", "precompute", "read", "watch"]


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"plumbline.train has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"plumbline.train.{home}"), name)
