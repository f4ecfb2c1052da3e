"""Tiny tables, tiny models and short loops, for claims whose right answer is exactly understood."""

from plumbline.lab.bigram import forget_rise

__all__ = ["forget_rise"]
