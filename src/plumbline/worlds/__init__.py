"""Synthetic corpora whose true distribution and facts are known, all deterministic by seed.

``people`` states facts a known number of times, ``arithmetic`` and ``instructions`` pose tasks with one right answer,
``chat`` is a register with refusals, ``cipher`` a second language, ``sources`` writes symbols with an exact next-token
distribution, and ``corpus`` puts them together. Nothing here loads a model.
"""

from __future__ import annotations

from plumbline.worlds.chat import Conversation
from plumbline.worlds.cipher import Cipher
from plumbline.worlds.corpus import documents, evaluation, exposures
from plumbline.worlds.people import Fact, facts
from plumbline.worlds.sources import Grammar, Markov
from plumbline.worlds.text import Document, Task

__all__ = [
    "Cipher",
    "Conversation",
    "Document",
    "Fact",
    "Grammar",
    "Markov",
    "Task",
    "documents",
    "evaluation",
    "exposures",
    "facts",
]
