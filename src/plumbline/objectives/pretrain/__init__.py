"""Pre-training: what is predicted, from which input, and against which teacher."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
