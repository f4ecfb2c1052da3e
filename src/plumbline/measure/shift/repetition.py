"""Repetition in token sequences, vectorised over padded rows: rep-n, loops, the codes of n-grams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plumbline.measure.totals import Floats

Codes = NDArray[np.uint64]
MIX = np.uint64(0x9E3779B97F4A7C15)


def padded(sequences: Sequence[ArrayLike]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of unlike length as one table [R, L], -1 beyond the end, and the lengths [R]."""
    length = np.array([len(s) for s in sequences], np.int64)  # type: ignore[arg-type]
    table = np.full((len(length), int(length.max(initial=0))), -1, np.int64)
    if table.size and length.any():
        inside = np.arange(table.shape[1])[None, :] < length[:, None]
        table[inside] = np.concatenate([np.asarray(s, np.int64) for s in sequences])
    return table, length


def ngrams(table: NDArray[np.int64], n: int) -> Codes:
    """A 64-bit code of the n-gram that begins at each position, [R, L] -> [R, L - n + 1]."""
    width = max(table.shape[1] - n + 1, 0)
    code = np.zeros((len(table), width), np.uint64)
    for k in range(n):
        code = (code + table[:, k : k + width].astype(np.uint64) + np.uint64(1)) * MIX
        code ^= code >> np.uint64(29)
    return code


def rep_n(table: NDArray[np.int64], length: NDArray[np.int64], n: int) -> Floats:
    r"""Share of n-grams that are repeats, per row: :math:`1 - |distinct| / |all|`; NaN below two n-grams. [R]."""
    code, count = ngrams(table, n), np.maximum(length - n + 1, 0)
    if not code.shape[1]:
        return np.full(len(table), np.nan)
    last = np.uint64(0xFFFFFFFFFFFFFFFF)
    code = np.sort(np.where(np.arange(code.shape[1])[None, :] < count[:, None], code, last), axis=1)
    new = np.concatenate([np.ones((len(code), 1), bool), code[:, 1:] != code[:, :-1]], 1)
    distinct = (new & (np.arange(code.shape[1])[None, :] < count[:, None])).sum(1)
    return np.where(count > 1, 1 - distinct / np.maximum(count, 1), np.nan)


def longest_loop(
    table: NDArray[np.int64], length: NDArray[np.int64], *, copies: int = 3, period: int = 48
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Length and period of the longest stretch made of ``copies`` or more equal blocks in a row, per row; 0 if none.

    Of equally long stretches the shortest period counts: "ha ha ha ha" has period 1, not 2.
    """
    best, of = np.zeros(len(table), np.int64), np.zeros(len(table), np.int64)
    for p in range(1, min(period, table.shape[1] // copies) + 1):
        equal = (table[:, p:] == table[:, :-p]) & (np.arange(p, table.shape[1])[None, :] < length[:, None])
        at = np.arange(1, equal.shape[1] + 1)[None, :]
        run = (at - np.maximum.accumulate(np.where(equal, 0, at), axis=1)).max(1)
        found = np.where(run >= (copies - 1) * p, run + p, 0)
        better = found > best
        best[better], of[better] = found[better], p
    return best, of
