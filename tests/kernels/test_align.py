"""align: token bytes of each tokenizer family, spans that tile any text, shared spans, next-byte distributions."""

from __future__ import annotations

import itertools
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from plumbline.core.errors import InputError
from plumbline.kernels.align import (
    Spans,
    byte_spans,
    first_byte_ids,
    next_byte,
    shared_spans,
    spans_of_ids,
    token_bytes,
)

DATA = Path(os.environ.get("PLUMBLINE_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SAMPLE = "Hi  there,\n\tna\u00efve \u4f60\u597d \U0001f469\u200d\U0001f680 x=12;   \r\n"


@cache
def real(name: str) -> Any:
    path = DATA / "tokenizers" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"no {path}: set PLUMBLINE_DATA to the folder with tokenizers/{name}.json")
    return PreTrainedTokenizerFast(tokenizer_file=str(path))


@cache
def byte_level(merges: tuple[tuple[str, str], ...] = ()) -> Tokenizer:
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, list(merges)))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(["<eos>"])
    return tok


@cache
def sentence_piece(prepend: str = "first", fallback: bool = True) -> Tokenizer:
    tokens = ["<unk>", *(f"<0x{b:02X}>" for b in range(256)), "\u2581", *"abcdeht", "th", "the", "\u2581the", "\u00ef"]
    merges = [("t", "h"), ("th", "e"), ("\u2581", "the")]
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token="<unk>", byte_fallback=fallback))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    tok.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme=prepend), decoders.ByteFallback()])
    tok.add_special_tokens(["<unk>", "<s>"])
    tok.add_tokens([AddedToken("cab", special=False, normalized=False)])
    return tok


@cache
def word_piece(lowercase: bool = False) -> Tokenizer:
    tokens = ["[UNK]", "play", "##ing", "##s", "the", ",", "P"]
    tok = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    tok.normalizer = normalizers.Lowercase() if lowercase else None
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    tok.add_special_tokens(["[UNK]"])
    return tok


def assert_tiles(spans: Spans, n: int) -> None:
    pairs = sorted(set(zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)))
    assert (np.diff(spans.starts) >= 0).all() and (np.diff(spans.ends) >= 0).all()
    if n:
        assert pairs[0][0] == 0 and pairs[-1][1] == n
        assert all(a[1] == b[0] for a, b in itertools.pairwise(pairs)) and all(a < b for a, b in pairs)


# --- token bytes


def test_byte_level_tokens_are_all_256_bytes() -> None:
    found = token_bytes(byte_level())
    assert sorted(found[:256]) == [bytes([b]) for b in range(256)] and found[256] is None


def test_sentence_piece_tokens() -> None:
    tok = sentence_piece()
    found = dict(zip(sorted(tok.get_vocab(), key=tok.get_vocab().get), token_bytes(tok), strict=True))
    assert found["<unk>"] is None and found["<s>"] is None
    assert found["<0x0A>"] == b"\n" and found["\u2581the"] == b" the" and found["\u00ef"] == "\u00ef".encode()
    assert found["cab"] == b"cab"


def test_word_piece_tokens() -> None:
    assert token_bytes(word_piece()) == [None, b"play", b"ing", b"s", b"the", b",", b"P"]


@pytest.mark.parametrize("name", ["gptneox", "starcoder"])
def test_real_tokens_decode_to_their_bytes(name: str) -> None:
    tok, found = real(name), token_bytes(real(name))
    assert found[tok.convert_tokens_to_ids("<|endoftext|>")] is None
    assert {bytes([b]) for b in range(0x80)} <= set(found)
    plain = [i for i, b in enumerate(found) if b is not None]
    assert len(plain) > 49_000
    for i in plain[::37]:
        assert tok.decode([i], clean_up_tokenization_spaces=False) == found[i].decode("utf-8", "replace")


# --- spans


@pytest.mark.parametrize("name", ["gptneox", "starcoder"])
def test_real_spans_are_exact(name: str) -> None:
    found, pieces = byte_spans(real(name), SAMPLE), token_bytes(real(name))
    data = SAMPLE.encode()
    assert_tiles(found, len(data))
    assert [data[s:e] for s, e in zip(found.starts, found.ends, strict=True)] == [pieces[i] for i in found.ids]


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_spans_tile_any_text_and_shared_spans_are_whole_tokens(text: str) -> None:
    n = len(text.encode())
    sides = []
    for name in ("gptneox", "starcoder"):
        try:
            sides.append(byte_spans(real(name), text))
        except InputError:
            # gptneox composes characters (NFC) and starcoder drops bytes that its training text lacked: only a text
            # that does not come back from the tokenizer may be refused
            ids = real(name)(text, add_special_tokens=False)["input_ids"]
            assert real(name).decode(ids, clean_up_tokenization_spaces=False) != text
            sides.append(byte_spans(real(name), text, allow_normalised=True))
        assert_tiles(sides[-1], n)
    a, b = sides
    found = shared_spans(a, b)
    assert found.starts.tolist() == [0, *found.ends[:-1].tolist()][: len(found.starts)]
    assert not n or found.ends[-1] == n
    for side, first, last in ((a, found.from_a, found.to_a), (b, found.from_b, found.to_b)):
        assert first.tolist() == [0, *last[:-1].tolist()][: len(first)] and (not n or last[-1] == len(side.ids))
        for k in range(len(first)):
            assert side.starts[first[k]] == found.starts[k] and side.ends[last[k] - 1] == found.ends[k]


@settings(max_examples=100, deadline=None)
@given(TEXTS)
@pytest.mark.parametrize("prepend", ["first", "never"])
def test_sentence_piece_spans_tile(prepend: str, text: str) -> None:
    assume("\u2581" not in text)  # it would be read as a space
    assert_tiles(byte_spans(sentence_piece(prepend), text), len(text.encode()))


def test_dummy_prefix_is_dropped() -> None:
    found = byte_spans(sentence_piece(), "the the")
    assert (found.starts.tolist(), found.ends.tolist()) == ([0, 3], [3, 7])
    found = byte_spans(sentence_piece(), "\u4f60a")  # mark, three bytes, a: the empty mark joins the first byte
    assert (found.starts.tolist(), found.ends.tolist()) == ([0, 0, 1, 2, 3], [1, 1, 2, 3, 4])


def test_unknown_characters_fall_back_to_offsets() -> None:
    found = byte_spans(sentence_piece("never", fallback=False), "a\u4f60\u597db")
    assert_tiles(found, 8)
    assert found.starts[0] == 0 and found.ends[-1] == 8 and len(set(found.starts.tolist())) >= 3


def test_word_piece_spaces_belong_to_the_word_after_them() -> None:
    found = byte_spans(word_piece(), "playing  the plays ")
    assert (found.starts.tolist(), found.ends.tolist()) == ([0, 4, 7, 12, 17], [4, 7, 12, 17, 19])


def test_special_text_is_one_token_of_its_own_bytes() -> None:
    found = byte_spans(byte_level(), "a<eos>b")
    assert (found.starts.tolist(), found.ends.tolist()) == ([0, 1, 6], [1, 6, 7])


def test_normalising_and_surrogates_are_refused() -> None:
    with pytest.raises(InputError, match="byte_spans: text.*'P' becomes 'p'|does not change"):
        byte_spans(word_piece(lowercase=True), "THE")
    assert_tiles(byte_spans(word_piece(lowercase=True), "THE", allow_normalised=True), 3)
    assert byte_spans(word_piece(lowercase=True), "the").ids
    with pytest.raises(InputError, match="lone surrogate at character 1"):
        byte_spans(byte_level(), "a\ud800")


def test_spans_of_generated_ids() -> None:
    tok = byte_level((("a", "b"),))
    vocab = tok.get_vocab()
    data, found = spans_of_ids(tok, [vocab["ab"], vocab["<eos>"], vocab["c"], 10_000])
    assert data == b"abc" and found.starts.tolist() == [0, 2, 2, 3] and found.ends.tolist() == [2, 2, 3, 3]


# --- shared spans


def test_identical_tokenizers_share_every_token() -> None:
    a = byte_spans(byte_level((("a", "b"),)), "abcab")
    found = shared_spans(a, a)
    assert found.one_to_one.all() and found.starts.tolist() == a.starts.tolist()


def test_single_bytes_against_a_merger() -> None:
    a, b = byte_spans(byte_level(), "abcabb"), byte_spans(byte_level((("a", "b"),)), "abcabb")
    found = shared_spans(a, b)
    assert list(zip(found.starts, found.ends, strict=True)) == [(0, 2), (2, 3), (3, 5), (5, 6)]
    assert (found.to_a - found.from_a).tolist() == [2, 1, 2, 1] and (found.to_b - found.from_b).tolist() == [1, 1, 1, 1]
    assert found.one_to_one.tolist() == [False, True, False, True]
    # sums over spans are sums over tokens
    logps = np.log(np.arange(1, 7))
    assert np.add.reduceat(logps, found.from_a).sum() == pytest.approx(logps.sum())
    with pytest.raises(InputError, match="shared_spans: spans_b"):
        shared_spans(a, byte_spans(byte_level(), "abc"))
    assert len(shared_spans(byte_spans(byte_level(), ""), byte_spans(byte_level(), "")).starts) == 0


def test_crossing_boundaries_make_one_span() -> None:
    a, b = byte_spans(byte_level((("a", "b"),)), "abc"), byte_spans(byte_level((("b", "c"),)), "abc")
    found = shared_spans(a, b)
    assert (found.starts.tolist(), found.ends.tolist()) == ([0], [3]) and not found.one_to_one.any()


# --- next byte


def test_next_byte_by_a_slow_loop_and_data_processing() -> None:
    tok = byte_level((("a", "b"), ("a", "c")))
    v = tok.get_vocab_size() + 3  # a padded head
    first = first_byte_ids(tok, v)
    assert first.dtype == torch.long and first.tolist()[-4:] == [256] * 4
    g = torch.Generator().manual_seed(0)
    p, q = (torch.softmax(3 * torch.randn(5, v, generator=g), -1) for _ in range(2))
    slow, pieces = torch.zeros(5, 257), token_bytes(tok)
    for i in range(v):
        slow[:, pieces[i][0] if i < len(pieces) and pieces[i] else 256] += p[:, i]
    fast, other = next_byte(p, first), next_byte(q, first)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(fast.sum(1), torch.ones(5))

    def kl(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x * (x / y).log(), 0).sum(1)

    assert (kl(fast, other) <= kl(p, q) + 1e-6).all() and (kl(fast, other) > 0).all()
    assert next_byte(p.bfloat16(), first).dtype == torch.float32
    with pytest.raises(InputError, match="next_byte: first"):
        next_byte(p, first[:-1])
