"""Text in pairs, a letter and its partner: a hidden partner and the letter after it follow from the two sides alone.

Text is ``x f(x) x' f(x') ...``. Left to right, every second token is certain and the others are uniform. Of the two
tokens in the middle of ``x [f(x) x'] f(x')`` the first follows from the left neighbour and the second from the right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from plumbline.core.scored import IGNORED, Scored
from plumbline.kernels.cached_lm import CachedLM
from plumbline.kernels.seeds import generator
from plumbline.lab.tiny import tiny

PAD, BOS, EOS, SEP, EOM = range(5)
MASKS = [5, 6]
LETTERS, PAIRS, FIRST = 8, 4, 7  # letters are FIRST to FIRST + 7, their partners the eight ids after that
VOCAB = FIRST + 2 * LETTERS
FORMAT: dict[str, Any] = {"mask_ids": MASKS, "sep_id": SEP, "eom_id": EOM, "eos_id": EOS}


def texts(n: int, *keys: str | int) -> list[list[int]]:
    """``n`` rows of ``PAIRS`` pairs."""
    letters = torch.randint(LETTERS, (n, PAIRS), generator=generator(0, "infilling", *keys))
    return torch.stack([letters + FIRST, (3 * letters + 1) % LETTERS + FIRST + LETTERS], -1).flatten(1).tolist()


def taught(change: Callable[..., Sequence[dict[str, Any]]], *, tokens: int, seed: int) -> PreTrainedModel:
    """A 2-layer Llama trained on the rows of ``change(texts, generator=)`` until it has read so many tokens."""
    model, g, step = tiny("llama", VOCAB, seed), generator(seed, "infilling", "taught"), 0
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    while tokens > 0:
        ids, labels = padded(change(texts(64, seed, step), generator=g))
        x = Scored.from_logits(model(input_ids=ids, use_cache=False).logits, labels, labels != IGNORED)
        adam.zero_grad()
        (-x.logps.sum() / x.mask.sum()).backward()
        adam.step()
        tokens, step = tokens - int(x.mask.sum()), step + 1
    return model


def padded(rows: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Ids and labels [B, L] behind a bos, padded on the right."""
    width = max(len(row["input_ids"]) for row in rows) + 1
    ids = [[BOS, *row["input_ids"], *[PAD] * (width - 1 - len(row["input_ids"]))] for row in rows]
    labels = [[IGNORED, *row["labels"], *[IGNORED] * (width - 1 - len(row["labels"]))] for row in rows]
    return torch.tensor(ids), torch.tensor(labels)


@torch.no_grad()
def causal_nll(model: PreTrainedModel) -> float:
    """Nats a token of held-out plain text."""
    ids, labels = padded([{"input_ids": row, "labels": row} for row in texts(256, "held out")])
    return float(-Scored.of(model, ids, labels=labels).total().sum() / (labels != IGNORED).sum())


def infilled(model: PreTrainedModel, place: int = 3) -> float:
    """Share of held-out rows whose hidden tokens ``place`` and the next are written to the letter, greedily."""
    mask = MASKS[0]
    asked = [[BOS, *row[:place], mask, *row[place + 2 :], EOS, SEP, mask] for row in texts(256, "held out")]
    return _written(model, asked, place, [EOM])


def continued(model: PreTrainedModel, place: int = 3) -> float:
    """The same tokens written from the left side alone: 1 in ``LETTERS`` at best."""
    return _written(model, [[BOS, *row[:place]] for row in texts(256, "held out")], place, [])


@torch.no_grad()
def _written(model: PreTrainedModel, asked: list[list[int]], place: int, end: list[int]) -> float:
    wanted = torch.tensor([[*row[place : place + 2], *end] for row in texts(256, "held out")])
    lm, text = CachedLM(model, -1), torch.tensor(asked)
    for _ in range(wanted.shape[1]):
        text = torch.cat([text, lm(text).argmax(-1, keepdim=True)], 1)
    return float((text[:, -wanted.shape[1] :] == wanted).all(-1).float().mean())
