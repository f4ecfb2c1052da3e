"""Texts from a file through the detector that belongs to a watermark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plumbline.core.declare import Card
from plumbline.core.discover import get, methods
from plumbline.core.errors import refuse
from plumbline.decode.command.compose import parse
from plumbline.kernels import jsonl
from plumbline.models.load import load_tokenizer
from plumbline.models.prompts import encode, text_in

PREFIX = "detect_"


def detector_of(name: str) -> Card:
    """The detector of a watermark: ``detect_<name>``, or that of the watermark whose name this one ends with.

    Raises:
        InputError: an unknown method, or one without a detector.
    """
    there = {found.removeprefix(PREFIX): found for found in methods() if found.startswith(PREFIX)}
    named = name.removeprefix(PREFIX)
    for known in sorted(there, key=len, reverse=True):
        if named == known or named.endswith(f"_{known}"):
            return get(there[known])
    raise refuse("detect", "--with", f"a watermark with a detector ({', '.join(sorted(there))})", get(name).name,
                 "name the watermark that the texts were written with")  # fmt: skip


def detect(
    texts: Path, method: str, tokenizer: str | None = None, *, level: float | None = None, limit: int | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Look for a watermark in every row of a JSONL file.

    Args:
        texts: rows with ``ids`` (as ``plumbline decode -o`` writes them) or ``text``; optionally ``id`` and
            ``prompt_length``, the tokens at the start that nobody sampled.
        method: ``name:key=value,...`` as the texts were written; what only writing needs is read and left alone.
        tokenizer: a model's source, for rows of text, and for schemes that permute its vocabulary.
        level: largest exact p-value that counts as watermarked; None: the detector's own.

    Returns:
        ``{"rows": [...], "summary": {...}}``.
    """
    card = detector_of(method.partition(":")[0].strip())
    part = parse(method, {name: param for name, param in card.params.items() if param.type is not Callable})
    values = {name: value for name, value in part.values.items() if name in card.params}
    if level is not None:
        card.params["level"].check(card.name, level)
        values["level"] = level
    voice, vocab = (None, None) if tokenizer is None else load_tokenizer(tokenizer, trust_remote_code=trust_remote_code)
    if vocab is not None and "vocab" in card.params:
        values.setdefault("vocab", vocab)
    names, ids, lengths = _read(texts, voice, limit)
    found = card.fn(ids, prompt_lengths=lengths, **values)
    rows = [{"id": name, **row} for name, row in zip(names, found.rows(), strict=True)]
    summary: dict[str, Any] = {"method": card.name, "texts": len(rows), "watermarked": int(found.watermarked.sum())}
    summary |= {"undecided": int((~found.decided).sum()), "level": values.get("level", card.params["level"].default)}
    return {"rows": rows, "summary": summary}


def _read(path: Path, tokenizer: Any, limit: int | None) -> tuple[list[str], list[list[int]], list[int]]:
    name, stem = jsonl.shown(path), jsonl.stem(path)
    names, texts, lengths = list[str](), list[list[int]](), list[int]()
    for n, row in jsonl.rows(path):
        if limit is not None and len(names) >= limit:
            break
        where = f"{name}:{n}"
        if not isinstance(row, dict) or not ("ids" in row or "text" in row):
            raise refuse(where, "the line", 'an object with "text" or "ids"', repr(row), 'write {"text": "..."}')
        names.append(str(row.get("id", f"{stem}:{n}")))
        texts.append(_tokens(row, tokenizer, where))
        length = row.get("prompt_length", 0)
        if type(length) is not int or length < 0:
            raise refuse(where, "prompt_length", "a whole number >= 0", repr(length), "count the prompt's tokens")
        lengths.append(length)
    if not names:
        raise refuse(name, "the file", "one JSON object per line", "an empty file", 'write lines like {"text": "..."}')
    return names, texts, lengths


def _tokens(row: dict[str, Any], tokenizer: Any, where: str) -> list[int]:
    ids = row.get("ids")
    if ids is not None:
        if not isinstance(ids, Sequence) or not all(type(i) is int and i >= 0 for i in ids):
            raise refuse(where, "ids", "a list of token ids", repr(ids), "write whole numbers")
        return list(ids)
    if tokenizer is None:
        raise refuse("detect", "--tokenizer", "given, as the rows hold text", "none", "name the model that wrote them")
    return encode(text_in(row["text"], "text", where, empty=True), tokenizer, special=False)


def table(found: dict[str, Any]) -> dict[str, list[str]]:
    """Columns for people."""
    rows = found["rows"]

    def number(value: Any) -> str:
        return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)

    return {name: [number(row.get(key)) for row in rows] for name, key in
            (("id", "id"), ("tokens", "n"), ("z", "z"), ("p-value", "p_value"), ("verdict", "verdict"))}  # fmt: skip


def summary(found: dict[str, Any]) -> str:
    """The count in one sentence."""
    s = found["summary"]
    aside = f", {s['undecided']} too short to tell" if s["undecided"] else ""
    return f"{s['watermarked']} of {s['texts']} texts watermarked by {s['method']} at p < {s['level']:g}{aside}"
