"""Compare two models: run the probes that the catalogue offers, keep records, render findings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plumbline.diff.comparison import Comparison as Comparison
    from plumbline.diff.comparison import compare as compare
    from plumbline.diff.prepare import Settings as Settings

__all__ = ["Comparison", "Settings", "compare"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from plumbline.diff import comparison

        return getattr(comparison, name)
    raise AttributeError(f"plumbline.diff has no attribute {name!r}")
