"""What every detector shares: texts to n-grams, each distinct pair once, and a verdict that may be withheld."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbline.core.errors import refuse
from plumbline.decode.watermark.keys import Scheme

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Detection:
    """One detector's answer for N texts.

    Attributes:
        n: [N] tokens scored.
        z: [N] standard score of the statistic, about N(0, 1) in text that does not carry the key; nan where n = 0.
        p_value: [N] odds of a statistic at least this large in such text; nan where n = 0.
        decided: [N] enough tokens were scored. watermarked: [N] decided, and the exact p-value is below the level.
        figures: the detector's own numbers by name, each [N].
    """

    n: NDArray[np.int64]
    z: Floats
    p_value: Floats
    decided: NDArray[np.bool_]
    watermarked: NDArray[np.bool_]
    figures: dict[str, NDArray[Any]] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """One plain dict a text, ready for JSON: n, the detector's numbers, z, p_value (None for nan), verdict."""
        columns = {"n": self.n, **self.figures, "z": self.z, "p_value": self.p_value}
        plain = {name: [None if x != x else x for x in values.tolist()] for name, values in columns.items()}
        told = [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
        for row, decided, found in zip(told, self.decided, self.watermarked, strict=True):
            row["verdict"] = ("watermarked" if found else "not watermarked") if decided else "undecided"
        return told


def verdict(n: NDArray[np.int64], exact: Floats, min_tokens: int, level: float) -> dict[str, NDArray[np.bool_]]:
    """``decided`` and ``watermarked`` [N] from the exact p-values [N]."""
    decided = n >= min_tokens
    with np.errstate(invalid="ignore"):
        return {"decided": decided, "watermarked": decided & (exact < level)}


def scored(
    method: str, texts: Any, mask: Any, prompt_lengths: Any, scheme: Scheme, tokenizer: Callable[..., Any] | None,
    distinct: bool,
) -> tuple[Tensor, NDArray[np.int64], int]:  # fmt: skip
    """The n-grams that count.

    Args:
        texts, mask, prompt_lengths, tokenizer: as the detectors take them.
        scheme: how many tokens a gram has, and which are the same pair.
        distinct: of equal pairs in one text, keep one.

    Returns:
        (grams [M, w + 1], the text [M] each is from, N).
    """
    ids, real = _ids(method, texts, mask, tokenizer)
    size = scheme.window + 1
    ids, real = (torch.nn.functional.pad(x, (0, max(size - x.shape[1], 0))) for x in (ids, real))
    place = real.long().cumsum(-1) - 1  # [N, T] which token of its text each is
    first = _lengths(method, prompt_lengths, len(ids))
    counts = real.unfold(1, size, 1).all(-1) & (place[:, size - 1 :] >= first[:, None])  # [N, T - w]
    grams = ids.unfold(1, size, 1)  # [N, T - w, w + 1], a view
    if not distinct:
        return grams[counts], counts.nonzero()[:, 0].numpy(), len(ids)
    return _distinct(grams, counts, scheme)


def _distinct(grams: Tensor, counts: Tensor, scheme: Scheme) -> tuple[Tensor, NDArray[np.int64], int]:
    """One gram of each run of equal pairs, row by row."""
    apart = torch.iinfo(torch.int64).max
    pairs = scheme.pairs(grams).masked_fill(~counts, apart).numpy()
    order = np.argsort(pairs, -1)
    ranked = np.take_along_axis(pairs, order, -1)
    fresh = ranked != apart
    fresh[:, 1:] &= ranked[:, 1:] != ranked[:, :-1]
    rows = np.repeat(np.arange(len(pairs)), fresh.sum(-1))
    return grams[torch.from_numpy(rows), torch.from_numpy(order[fresh])], rows, len(pairs)


def _ids(method: str, texts: Any, mask: Any, tokenizer: Callable[..., Any] | None) -> tuple[Tensor, Tensor]:
    """ids [N, T] i64 and which are real [N, T] bool, on the CPU."""
    if isinstance(texts, str):
        texts = [texts]
    if isinstance(texts, Sequence) and any(isinstance(t, str) for t in texts):
        if tokenizer is None:
            raise refuse(method, "tokenizer", "given, as the texts are strings", "None", "pass the model's tokenizer")
        texts = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    if isinstance(texts, (Tensor, np.ndarray)) and texts.ndim == 2:
        ids = torch.as_tensor(texts).detach().cpu()
        real = torch.ones(ids.shape, dtype=torch.bool) if mask is None else torch.as_tensor(mask).cpu() != 0
    elif isinstance(texts, Sequence) and mask is None:
        ids, real = _padded(texts)
    else:
        raise refuse(method, "texts", "ids [N, T] (with mask [N, T] if padded), lists of ids, or strings",
                     f"{type(texts).__name__}, mask {type(mask).__name__}", "pass one of them")  # fmt: skip
    if real.shape != ids.shape:
        raise refuse(method, "mask", f"of the ids' shape {list(ids.shape)}", list(real.shape), "pass the batch's own")
    if ids.is_floating_point() or bool((ids.masked_fill(~real, 0) < 0).any()):
        raise refuse(
            method, "texts", "whole token ids >= 0", f"{ids.dtype} with smallest {ids.min()}", "tokenize first"
        )
    return ids.long(), real


def _padded(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    real = np.arange(lengths.max(initial=0)) < lengths[:, None]
    ids = np.zeros(real.shape, np.int64)
    if lengths.any():
        ids[real] = np.concatenate([np.asarray(t, np.int64) for t in texts if len(t)])
    return torch.from_numpy(ids), torch.from_numpy(real)


def _lengths(method: str, prompt_lengths: Any, n: int) -> Tensor:
    found = torch.as_tensor(prompt_lengths).cpu()
    if found.dim() > 1 or (found.dim() == 1 and len(found) != n) or bool((found < 0).any()):
        raise refuse(method, "prompt_lengths", f"one number >= 0, or one for each of {n} texts", found.tolist(),
                     "count the prompt's tokens")  # fmt: skip
    return found.expand(n)
