"""Probes of two models side by side: distributions, diversity, flips, refusals, degeneration."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
