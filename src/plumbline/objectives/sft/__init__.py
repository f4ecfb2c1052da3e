"""Supervised fine-tuning: losses on labelled tokens, and what changes the tokens or the targets beforehand."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
