"""Training: rows to batches, models to roles, and one trainer that runs any loss over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plumbline.train.fitting import Trained, fit
    from plumbline.train.precompute import precompute
    from plumbline.train.rollouts import Engine, rollouts
    from plumbline.train.rows import read
    from plumbline.train.watching import watch

_HOMES = {
    "Trained": "fitting", "fit": "fitting", "precompute": "precompute", "Engine": "rollouts", "rollouts": "rollouts",
    "read": "rows", "watch": "watching",
}  # fmt: skip
__all__ = ["Engine", "Trained", "fit", "precompute", "read", "rollouts", "watch"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"plumbline.train has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"plumbline.train.{_HOMES[name]}"), name)
