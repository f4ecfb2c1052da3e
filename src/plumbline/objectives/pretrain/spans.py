"""Span corruption and its inverse, in CodeGen2's format: context, end, separator, then each span after its mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from plumbline.core.errors import refuse

Span = tuple[int, int]  # start, end; tokens start to end - 1


def corrupt(
    ids: Sequence[int], spans: Sequence[Span], *, mask_ids: Sequence[int], sep_id: int, eom_id: int, eos_id: int
) -> list[int]:
    """``a <mask_1> c <eos> <sep> <mask_1> b <eom>`` for the text ``a b c`` whose span b is hidden.

    Args:
        ids: the text. spans: in order, apart from one another, at most one a mask id.
    """
    context, hidden, at = list[int](), list[int](), 0
    for (start, end), mask in zip(spans, mask_ids, strict=False):
        context += [*ids[at:start], mask]
        hidden += [mask, *ids[start:end], eom_id]
        at = end
    return [*context, *ids[at:], eos_id, sep_id, *hidden]


def uncorrupt(ids: Sequence[int], *, mask_ids: Sequence[int], sep_id: int, eom_id: int, eos_id: int) -> list[int]:
    """The text behind a corrupted row, written or completed by a model; a row without a separator is its own text.

    A last span that was cut before its ``eom`` counts as it stands.

    Raises:
        InputError: two separators, no end before the separator, a mask without its span or a span without its mask.
    """
    row = list(ids)
    if sep_id not in row:
        return row
    cut = row.index(sep_id)
    if sep_id in row[cut + 1 :] or cut == 0 or row[cut - 1] != eos_id:
        raise refuse("uncorrupt", "ids", "context, eos, one separator, spans", "another order", "pass corrupted rows")
    spans, masks, at = dict[int, list[int]](), set(mask_ids), cut + 1
    while at < len(row):
        end = row.index(eom_id, at) if eom_id in row[at:] else len(row)
        if row[at] not in masks or row[at] in spans:
            raise refuse("uncorrupt", "ids", "each span after its own mask", f"id {row[at]}", "stop at eom")
        spans[row[at]] = row[at + 1 : end]
        at = end + 1
    context = row[: cut - 1]
    if sorted(spans) != sorted(i for i in context if i in masks):
        raise refuse("uncorrupt", "ids", "a span for each mask", f"spans of {sorted(spans)}", "generate every span")
    return [token for i in context for token in (spans[i] if i in masks else [i])]


def draw_spans(
    length: int, hidden: int, mean: float, most: int, ends: Sequence[int] = (), generator: torch.Generator | None = None
) -> list[Span]:
    """Random spans that do not touch, ``hidden`` tokens in all; all ways of laying them out are equally likely.

    Args:
        length: of the text. mean: wanted mean length of a span. most: number of spans at most.
        ends: places that end a document. They are never hidden and no span crosses one: of a span that would, the
            longest piece is kept, so that fewer than ``hidden`` tokens are hidden in rows of several documents.
    """
    if length < 2:
        return []
    hidden = min(max(hidden, 1), length - 1)
    number = max(1, min(round(hidden / mean), most, hidden, length - hidden + 1))
    widths = _parts(hidden, number, generator)
    gaps = _parts(length - hidden + 2, number + 1, generator)  # the outer gaps may be empty
    spans, at = list[Span](), gaps[0] - 1
    for width, gap in zip(widths, gaps[1:], strict=True):
        cuts = [at - 1, *(e for e in ends if at <= e < at + width), at + width]
        pieces = [(a + 1, b) for a, b in zip(cuts, cuts[1:])]
        start, end = max(pieces, key=lambda piece: piece[1] - piece[0])
        spans += [(start, end)] if end > start else []
        at += width + gap
    return spans


def _parts(total: int, number: int, generator: torch.Generator | None) -> list[int]:
    """``total`` as a sum of ``number`` positive parts, every such sum equally likely."""
    cuts = sorted((torch.randperm(total - 1, generator=generator)[: number - 1] + 1).tolist())
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]
