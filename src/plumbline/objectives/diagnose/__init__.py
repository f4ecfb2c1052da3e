"""Diagnostics of preference losses: what an update will do to both answers, before and while it is done."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
