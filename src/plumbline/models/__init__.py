"""Models: loading them, naming their parts, and the small ones that ship with the package."""

from __future__ import annotations

from plumbline.models.lm import LM
from plumbline.models.load import load, load_pair

__all__ = ["LM", "load", "load_pair"]
