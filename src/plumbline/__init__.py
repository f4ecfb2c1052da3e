"""Plumbline measures the gap between how a language model was trained and how it is used, and closes it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plumbline.diff import Comparison as Comparison
    from plumbline.diff import Settings as Settings
    from plumbline.diff import compare as compare
    from plumbline.models import load as load

__version__ = "0.1.0"
_OFFERS = {
    "compare": "plumbline.diff",
    "Comparison": "plumbline.diff",
    "Settings": "plumbline.diff",
    "load": "plumbline.models",
}


def __getattr__(name: str) -> Any:
    """Names and rooms are imported when first asked for, so that ``import plumbline`` is fast."""
    if name in _OFFERS:
        return getattr(import_module(_OFFERS[name]), name)
    try:
        return import_module(f"plumbline.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"plumbline.{name}":
            raise
        raise AttributeError(f"plumbline has no attribute {name!r}") from None
