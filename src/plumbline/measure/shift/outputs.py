"""What the degeneration probe sums per output, and the outputs worth reading."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plumbline.kernels.records import Records
from plumbline.measure.shift.repetition import longest_loop, ngrams, padded, rep_n
from plumbline.measure.text import clip, items_of, outputs_of
from plumbline.measure.totals import ItemSums

COLUMNS = {"looping": "n", "early_stop": "n", "unfinished": "n", "output_tokens": "n",
           "rep_1": "has_1", "rep_2": "has_2", "rep_3": "has_3", "rep_4": "has_4"}  # fmt: skip
ROWS = 1024  # outputs handled at a time
GRAMS = 4_000_000  # n-grams of one arm that distinct-n is computed over


@dataclass
class OutputSums:
    """One arm."""

    sums: ItemSums = field(default_factory=ItemSums)
    codes: dict[int, list[Any]] = field(default_factory=lambda: {1: [], 2: []})
    grams: dict[int, int] = field(default_factory=lambda: {1: 0, 2: 0})
    loops: list[tuple[int, int, int]] = field(default_factory=list)  # (length, period, item), the longest 50

    def distinct(self, n: int) -> float | None:
        """Distinct n-grams over all n-grams."""
        return float(len(np.unique(np.concatenate(self.codes[n]))) / self.grams[n]) if self.grams[n] else None

    def add(self, item: Any, sequences: list[Any], finish: Any, empty: Any, *, loop: int, short: int) -> None:
        table, length = padded(sequences)
        looped, period = longest_loop(table, length)
        values: dict[str, Any] = {
            "looping": looped >= loop, "early_stop": empty | (length <= short), "unfinished": finish == "length",
            "output_tokens": length,
        }  # fmt: skip
        for n in (1, 2, 3, 4):
            rep = rep_n(table, length, n)
            values |= {f"rep_{n}": np.nan_to_num(rep), f"has_{n}": ~np.isnan(rep)}
            if n in self.codes and self.grams[n] < GRAMS:
                count = np.maximum(length - n + 1, 0)
                code = ngrams(table, n)
                kept = code[np.arange(code.shape[1])[None, :] < count[:, None]]
                self.codes[n].append(kept)
                self.grams[n] += len(kept)
        self.sums.add(item, **values)
        found = zip(looped.tolist(), period.tolist(), item.tolist(), strict=True)
        self.loops = sorted([*self.loops, *(f for f in found if f[0] >= loop)], reverse=True)[:50]


def gather(comparison: Records, *, loop: int, short: int) -> dict[str, OutputSums]:
    """Both arms' sums over outputs that the models generated, in blocks of 1,024."""
    arms = {"a": OutputSums(), "b": OutputSums()}
    words = comparison.meta.get("same_tokenizer") is False
    columns = ["item", "arm", "text", "finish", *([] if words else ["ids"])]
    for frame in comparison.batches("outputs", columns=columns, rows=ROWS):
        frame = frame[frame["finish"].astype(str).isin(("eos", "length"))]
        for arm, found in arms.items():
            rows = frame[frame["arm"].astype(str) == arm]
            if not len(rows):
                continue
            finish, empty = rows["finish"].astype(str).to_numpy(), (rows["text"].str.strip() == "").to_numpy(bool)
            if words:
                said = [[zlib.crc32(w.encode()) for w in text.split()] for text in rows["text"]]
            else:  # the end token is no part of what was said
                said = [ids[:-1] if end == "eos" else ids for ids, end in zip(rows["ids"], finish, strict=True)]
            found.add(rows["item"].to_numpy(), said, finish, empty, loop=loop, short=short)
    return arms


def worst_rows(comparison: Records, arms: dict[str, OutputSums], top: int = 50) -> list[dict[str, Any]]:
    """The longest loops of both arms with their prompts and texts."""
    found = sorted(((*loop, arm) for arm, g in arms.items() for loop in g.loops), reverse=True)[:top]
    told, texts = items_of(comparison), outputs_of(comparison, [f[2] for f in found])
    return [
        {
            "id": told["id"].get(item, str(item)), "arm": "TUNED" if arm == "b" else "BASE", "loop_tokens": length,
            "period": period, "prompt": clip(told["prompt"].get(item, "")), "output": clip(texts.get((item, arm)), 400),
        }
        for length, period, item, arm in found
    ]  # fmt: skip
