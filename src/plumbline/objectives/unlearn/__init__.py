"""Losses that lower what a model knows of a forget set."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
