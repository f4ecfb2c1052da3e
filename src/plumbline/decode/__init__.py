"""Rules on logits, samplers and selectors: everything that acts between a forward pass and the next token."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
