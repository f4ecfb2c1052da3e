"""Samplers that draft several tokens and verify them in one pass, most of them without changing the distribution."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
