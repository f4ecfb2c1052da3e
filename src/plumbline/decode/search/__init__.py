"""Draw many and select, search with a second score, and what can be predicted about both."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
