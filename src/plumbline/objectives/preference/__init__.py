"""Preferences: losses on pairs or on single judged answers, the data and the rewards they start from."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
