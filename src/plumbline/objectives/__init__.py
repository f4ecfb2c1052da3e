"""Losses on ``Scored`` views, never on models: pure functions over roles, each one screen."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
