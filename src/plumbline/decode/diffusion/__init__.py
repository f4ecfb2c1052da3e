"""Samplers of masked diffusion language models, and an audit of how categorical draws are made."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
