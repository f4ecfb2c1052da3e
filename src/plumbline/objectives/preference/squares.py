"""Every answer of a query under every one of its prompts: one row that a trainer may shuffle, n² when it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from plumbline.core.errors import refuse
from plumbline.core.scored import IGNORED

Ids = Sequence[int]


def square_row(prompts: Sequence[Ids], answers: Sequence[Ids]) -> dict[str, Any]:
    """One query's row: n prompts and the n answers that were sampled under them, as token ids.

    Its column ``square`` holds n² pairs of ids and labels, prompt by prompt and inside it answer by answer; the row
    itself is the first of them. Where the prompt ends is told for each, for prompts differ in length.

    Raises:
        InputError: another number of answers than of prompts, or an empty answer.
    """
    if len(prompts) != len(answers) or not all(answers):
        got = [len(prompts), [len(answer) for answer in answers]]
        raise refuse("square_row", "answers", "one answer of at least a token for every prompt", got, "sample again")
    square = [([*p, *y], [IGNORED] * len(p) + list(y)) for p in prompts for y in answers]
    return {"input_ids": square[0][0], "labels": square[0][1], "square": square}


def spread_squares(batch: Mapping[str, Mapping[str, Any]], *, stream: str = "x", pad: int = 0) -> dict[str, Any]:
    """For ``fit(prepare=...)``: the stream with its Q rows spread to Q n², padded on the right."""
    columns = batch.get(stream, {})
    if "square" not in columns:
        got = sorted(columns or batch)
        raise refuse("spread_squares", f"stream {stream}", "rows made by square_row", got, "add the column square")
    pairs = [pair for square in columns["square"] for pair in square]
    size, device = (len(pairs), max(len(ids) for ids, _ in pairs)), columns["input_ids"].device
    ids, labels = torch.full(size, pad), torch.full(size, IGNORED)
    attention = torch.zeros(size, dtype=torch.long)
    for row, (tokens, wanted) in enumerate(pairs):
        ids[row, : len(tokens)], labels[row, : len(tokens)] = torch.tensor(tokens), torch.tensor(wanted)
        attention[row, : len(tokens)] = 1
    found = {"input_ids": ids, "attention_mask": attention, "labels": labels}
    return {**batch, stream: {name: tensor.to(device) for name, tensor in found.items()}}
