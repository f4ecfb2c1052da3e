"""The bytes of every token, where the tokens of a text lie in it, and the spans that two tokenizers share.

A causal model's tokens spell out UTF-8 bytes; two tokenizers cut the same bytes in different places. Everything here is
in bytes, so that nothing depends on how a tokenizer marks spaces or splits characters.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbline.core.errors import refuse

Index = NDArray[np.int64]
SPECIAL = 256  # bin of the next-byte distribution for special and end tokens
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Spans(NamedTuple):
    """Tokens of one text: ids [T], and the bytes [start, end) each covers, [T] int64.

    Tokens that cannot be told apart in the text (a character whose offsets they share, a token of no bytes and its
    neighbour) form one unit and have the same start and end; the units tile the text.
    """

    ids: list[int]
    starts: Index
    ends: Index


class SharedSpans(NamedTuple):
    """Stretches of bytes [S] that are whole numbers of tokens on both sides: tokens from_a[k]:to_a[k] of side a."""

    starts: Index
    ends: Index
    from_a: Index
    to_a: Index
    from_b: Index
    to_b: Index

    @property
    def one_to_one(self) -> NDArray[np.bool_]:
        """Spans that are a single token on either side [S]."""
        one: NDArray[np.bool_] = (self.to_a - self.from_a == 1) & (self.to_b - self.from_b == 1)
        return one


# The printable alphabet of byte-level BPE (Radford et al., 2019): character -> byte.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_ALPHABET = {chr(b): b for b in _PRINTABLE}
_ALPHABET |= {chr(256 + i): b for i, b in enumerate(sorted(set(range(256)) - set(_PRINTABLE)))}


class _Table(NamedTuple):
    pieces: list[bytes | None]  # what each id spells; None for an id that is no token
    special: frozenset[int]


_cache: OrderedDict[tuple[int, int], tuple[Any, _Table]] = OrderedDict()


def _backend(tokenizer: Any) -> Any:
    return tokenizer if hasattr(tokenizer, "to_str") else getattr(tokenizer, "backend_tokenizer", None)


def _parts(node: Any) -> list[dict[str, Any]]:
    """A tokenizer component and those nested in it."""
    if not isinstance(node, dict):
        return []
    nested = node.get("decoders") or node.get("pretokenizers") or node.get("normalizers") or []
    return [node, *(p for child in nested for p in _parts(child))]


def _table(tokenizer: Any) -> _Table:
    key = (id(tokenizer), len(tokenizer) if hasattr(tokenizer, "__len__") else tokenizer.get_vocab_size())
    if key in _cache:
        _cache.move_to_end(key)
        return _cache[key][1]
    table = _build(tokenizer)
    _cache[key] = (tokenizer, table)  # the tokenizer is kept alive so that its id stays its own
    if len(_cache) > 8:
        _cache.popitem(last=False)
    return table


def _build(tokenizer: Any) -> _Table:
    vocab: dict[str, int] = tokenizer.get_vocab()
    backend = _backend(tokenizer)
    if backend is not None:
        spec = json.loads(backend.to_str())
        kinds = [*_parts(spec.get("decoder")), *_parts(spec.get("pre_tokenizer"))]
        names = {part["type"] for part in kinds}
        fallback = "ByteFallback" in names or bool(spec["model"].get("byte_fallback"))
        spaced = "Metaspace" in names or any(p.get("pattern") == {"String": _SPACE} for p in kinds)
        byte_level, word_piece = "ByteLevel" in names, "WordPiece" in names
        mark = str((spec["model"].get("continuing_subword_prefix") or "##") if word_piece else "")
        added = {i: (t.content, t.special) for i, t in backend.get_added_tokens_decoder().items()}
    else:  # tokenizers written in Python: told apart by how they mark a space
        byte_level = sum(token.startswith("\u0120") for token in vocab) > len(vocab) // 50
        spaced = fallback = any(token.startswith(_SPACE) for token in vocab)
        mark = ""
        decoder = getattr(tokenizer, "added_tokens_decoder", {})
        added = {i: (str(t), bool(getattr(t, "special", True))) for i, t in decoder.items()}
    special = {i for i, (_, is_special) in added.items() if is_special} | set(getattr(tokenizer, "all_special_ids", ()))

    def spell(token: str) -> bytes:
        if byte_level and all(c in _ALPHABET for c in token):
            return bytes(_ALPHABET[c] for c in token)
        if fallback and (match := _BYTE.fullmatch(token)):
            return bytes([int(match[1], 16)])
        if spaced:
            token = token.replace(_SPACE, " ")
        return token.removeprefix(mark).encode("utf-8", "surrogatepass")

    pieces: list[bytes | None] = [None] * (max(vocab.values(), default=-1) + 1)
    for token, i in vocab.items():
        pieces[i] = added[i][0].encode("utf-8", "surrogatepass") if i in added else spell(token)
    return _Table(pieces, frozenset(special))


def token_bytes(tokenizer: Any) -> list[bytes | None]:
    """The bytes each token spells, by id [V]; None for special tokens and for ids that are no token.

    Byte-level BPE is mapped back through its alphabet; SentencePiece's space mark becomes a space and ``<0xNN>`` that
    byte; a WordPiece continuation loses its mark. Works on transformers and on ``tokenizers`` tokenizers.
    """
    table = _table(tokenizer)
    return [None if i in table.special else piece for i, piece in enumerate(table.pieces)]


def _encode(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]] | None]:
    backend = _backend(tokenizer)
    if backend is tokenizer:
        found = tokenizer.encode(text, add_special_tokens=False)
        return list(found.ids), list(found.offsets)
    if backend is not None:
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
        return list(found["input_ids"]), [tuple(pair) for pair in found["offset_mapping"]]
    return list(tokenizer.encode(text, add_special_tokens=False)), None


def _units(starts: Index, ends: Index, n: int) -> tuple[Index, Index]:
    """Merge overlapping and empty stretches into units that tile [0, n); gaps go to the unit that follows them."""
    if not len(starts):
        return starts, ends
    reach = np.maximum.accumulate(ends)
    before = np.concatenate([[0], reach[:-1]])
    # A unit begins at a token that starts at or after everything before it, once something was covered.
    new = (starts >= before) & (reach > before)
    unit = np.maximum(np.cumsum(new) - 1, 0)
    last = np.flatnonzero(np.append(unit[1:] != unit[:-1], True))
    stops = reach[last]
    stops[-1] = n
    return np.concatenate([[0], stops[:-1]])[unit], stops[unit]


def byte_spans(tokenizer: Any, text: str, *, allow_normalised: bool = False) -> Spans:
    """Tokenise a text (no special tokens added) and say which of its UTF-8 bytes each token covers.

    Where the tokens spell the text exactly (after a dummy prefix space) the spans are exact to the byte. Otherwise the
    tokenizer's character offsets are used, and tokens that share a character form one unit.

    Args:
        tokenizer: a transformers or ``tokenizers`` tokenizer.
        text: any text without lone surrogates.
        allow_normalised: accept a tokenizer that changes this text (case, NFKC) instead of refusing it.

    Raises:
        InputError: lone surrogates; a text that the tokenizer changes; no offsets where they are needed.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise refuse(
            "byte_spans", "text", "encodable as UTF-8", f"a lone surrogate at character {error.start}",
            'replace it: text.encode("utf-8", "replace").decode()',
        ) from None  # fmt: skip
    ids, offsets = _encode(tokenizer, text)
    table = _table(tokenizer)
    spelled = [table.pieces[i] or b"" for i in ids]
    joined = b"".join(spelled)
    dummy = 1 if joined != data and joined == b" " + data else 0
    if joined == data or dummy:
        ends = np.maximum(np.cumsum([len(piece) for piece in spelled], dtype=np.int64) - dummy, 0)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
        return Spans(ids, *_units(starts, ends, len(data)))
    if offsets is None:
        do = "use its fast version"
        raise refuse("byte_spans", "tokenizer", "one whose tokens spell the text, or with offsets", "neither", do)
    at = np.concatenate([[0], np.cumsum([len(c.encode("utf-8")) for c in text])]).astype(np.int64)
    pairs = np.array(offsets, np.int64).reshape(-1, 2)
    starts, ends = _units(at[pairs[:, 0]], at[pairs[:, 1]], len(data))
    changed = _changed(data, ids, table, starts, ends)
    if changed is not None and not allow_normalised:
        raise refuse(
            "byte_spans", "text", "one the tokenizer does not change", changed,
            "compare on tokenizer.decode(tokenizer.encode(text)) for both models, or pass allow_normalised=True",
        )  # fmt: skip
    return Spans(ids, starts, ends)


def _changed(data: bytes, ids: list[int], table: _Table, starts: Index, ends: Index) -> str | None:
    """The first unit whose tokens spell something else than its bytes, white space aside."""
    if not ids:
        return f"{data[:40]!r} without tokens" if data.strip() else None
    first = np.flatnonzero(np.append(True, starts[1:] != starts[:-1]))
    for i, j in zip(first, [*first[1:], len(ids)], strict=True):
        own = ids[i:j]
        if any(k in table.special for k in own):
            continue
        said = b"".join(table.pieces[k] or b"" for k in own)
        meant = data[starts[i] : ends[i]]
        if b"".join(said.split()) != b"".join(meant.split()):
            return f"{meant.decode('utf-8', 'replace')!r} becomes {said.decode('utf-8', 'replace')!r}"
    return None


def spans_of_ids(tokenizer: Any, ids: Sequence[int]) -> tuple[bytes, Spans]:
    """What given token ids (a generated response) spell, and the bytes each covers; special tokens cover none.

    Returns:
        (bytes [N], Spans); here a token of no bytes has start == end.
    """
    table = _table(tokenizer)
    size = len(table.pieces)
    spelled = [(table.pieces[i] or b"") if 0 <= i < size and i not in table.special else b"" for i in map(int, ids)]
    ends = np.cumsum([len(piece) for piece in spelled], dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
    return b"".join(spelled), Spans([int(i) for i in ids], starts, ends)


def shared_spans(spans_a: Spans, spans_b: Spans) -> SharedSpans:
    r"""The finest cut of a text into stretches that are whole numbers of tokens for both tokenizers.

    .. math:: S = S_A \cap S_B,\quad S_A = \{0, N\} \cup \{\text{unit boundaries of A}\}

    Args:
        spans_a: from :func:`byte_spans` on the same text as ``spans_b``.
        spans_b: the other tokenizer's.

    Returns:
        SharedSpans with S entries; their bytes tile the text and their tokens tile both token lists.

    Raises:
        InputError: the two cover a different number of bytes.
    """
    n_a, n_b = (int(s.ends[-1]) if len(s.ends) else 0 for s in (spans_a, spans_b))
    if n_a != n_b:
        raise refuse(
            "shared_spans", "spans_b", f"of the same text ({n_a} bytes)", f"{n_b} bytes", "tokenise one text twice"
        )
    if not n_a:
        none = np.zeros(0, np.int64)
        return SharedSpans(none, none, none, none, none, none)
    cuts = np.intersect1d(np.append(spans_a.starts, n_a), np.append(spans_b.starts, n_b))
    at_a, at_b = np.searchsorted(spans_a.starts, cuts), np.searchsorted(spans_b.starts, cuts)
    return SharedSpans(cuts[:-1], cuts[1:], at_a[:-1], at_a[1:], at_b[:-1], at_b[1:])


def first_byte_ids(tokenizer: Any, vocab: int) -> Tensor:
    """First byte of every token, [V] int64 in 0..256; 256 for special tokens, empty ones and ids without a token.

    Args:
        tokenizer: as in :func:`token_bytes`.
        vocab: V, the width of the model's logits (often more than the tokenizer has).
    """
    first = [SPECIAL] * vocab
    for i, piece in enumerate(token_bytes(tokenizer)[:vocab]):
        if piece:
            first[i] = piece[0]
    return torch.tensor(first, dtype=torch.long)


def next_byte(probs: Tensor, first: Tensor) -> Tensor:
    r"""Next-byte distribution: :math:`q(x) = \sum_{v: \mathrm{first}(v) = x} p(v)`.

    Args:
        probs: next-token probabilities [N, V].
        first: :func:`first_byte_ids` [V], moved to the device of ``probs`` if it is elsewhere.

    Returns:
        [N, 257] float32; rows sum to those of ``probs``. The last bin is special and end tokens.
    """
    if probs.dim() != 2 or first.shape != probs.shape[1:]:
        do = "pass first_byte_ids(tokenizer, probs.shape[1])"
        raise refuse("next_byte", "first", f"[V] for probs {tuple(probs.shape)}", tuple(first.shape), do)
    out = torch.zeros(probs.shape[0], SPECIAL + 1, dtype=torch.float32, device=probs.device)
    return out.index_add(1, first.to(probs.device), probs.float())
