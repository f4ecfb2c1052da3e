"""Signals written into sampled text, their detectors, and what repairs the damage they do."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
