"""Pairs of texts as rows for training, with the border between prompt and answer where both sides agree on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plumbline.core.scored import IGNORED
from plumbline.models.prompts import encode


def encode_pair(row: Mapping[str, Any], tokenizer: Any) -> dict[str, dict[str, list[int]]]:
    """Rows for the streams ``chosen`` and ``rejected`` from a row of ``rise``.

    Where a tokenizer joins the end of the prompt with the start of an answer, the two sides begin to differ from the
    prompt's own tokens at different places; both are scored from the earlier. A sampled answer ends with the end
    token; an edited step does not, for a step is not an end.

    Args:
        row: prompt, initial_reason_steps, chosen, rejected and kind, all texts.

    Returns:
        ``{"chosen": {"input_ids", "labels"}, "rejected": ...}``; labels are -100 up to the border.
    """
    head = row["prompt"] + row["initial_reason_steps"]
    alone = encode(head, tokenizer, special=True)
    sides = {side: encode(head + row[side], tokenizer, special=True) for side in ("chosen", "rejected")}
    border = min(_agreed(alone, ids) for ids in sides.values())
    end = [tokenizer.eos_token_id] if row["kind"] == "sampled" else []
    return {
        side: {"input_ids": ids + end, "labels": [IGNORED] * border + ids[border:] + end} for side, ids in sides.items()
    }


def _agreed(first: list[int], second: list[int]) -> int:
    """Tokens that two sequences begin with alike."""
    together = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(together) if a != b), min(len(first), len(second)))
