"""Rules that mix one more next-token distribution into the model's own."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
