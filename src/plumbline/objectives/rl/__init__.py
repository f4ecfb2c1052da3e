"""Reinforcement with verifiable rewards: advantages, policy losses, corrections for the engine that sampled."""

from plumbline.core.discover import attach

__getattr__, __dir__, __all__ = attach(__name__)
