"""Training data as rows of token ids with labels: what ``fit`` is run on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from plumbline.core.errors import refuse
from plumbline.core.scored import IGNORED
from plumbline.kernels import jsonl
from plumbline.train.forms import CROSSED, FORMS, MEND, FormName, Row, need, recognised
from plumbline.train.templates import Chat, Encoder, Piece, Text, Tokens

_CHUNK = 2048  # rows tokenised together


class Rows(dict[str, list[Row]]):
    """Stream name -> rows, ready for ``fit``; and what became of the data on the way.

    Attributes:
        form: the form that was recognised. count: rows read. truncated: rows of which some tokens were cut off.
        dropped: rows left out because nothing to train on was left of them. notes: what a person should know.
    """

    form: str = ""
    count: int = 0
    truncated: int = 0
    dropped: int = 0
    notes: tuple[str, ...] = ()


def read(
    source: Any, tokenizer: Any, *, form: FormName | None = None, max_length: int | None = None,
    cut: Literal["right", "left"] = "right", eos: bool = True, last_turn: bool = False, as_chat: bool = False,
    mismatched: bool = False,
) -> Rows:  # fmt: skip
    """Read and tokenise training data.

    Args:
        source: a path to JSONL (``.gz`` too, "-" is standard input) or Parquet, an iterable of dicts, or a
            ``datasets.Dataset``.
        tokenizer: the model's; messages go through its chat template.
        form: one of the table in ``train.forms``; recognised by the first row's columns when left out.
        max_length: longer rows are cut to this many tokens; no bound when left out.
        cut: the side that is cut off. "left" keeps the end of a row, and a BOS in front of it.
        eos: end raw completions and texts with the end-of-sequence token; False for steps of a longer answer.
        last_turn: of a conversation train on the assistant's last turn alone, not on all.
        as_chat: give string prompts and completions to the chat template as a user's and an assistant's message.
        mismatched: of rows with a prompt and a completion, also the stream "mismatched": each completion after the
            next row's prompt, as KTO's estimate of the divergence and CCA's contrast need.

    Returns:
        Streams of rows ``{"input_ids", "labels", ...}``, -100 where not trained on: "chosen" and "rejected" for
        preferences (aligned), "prompts" for prompts (no label; ``row`` is the row as read), "x" for all others, with a
        bool ``desirable`` where unpaired. Columns of numbers come along: per row, or per token where a tokenized row
        has as many as ids (cut like these).

    Raises:
        InputError: one line that names the file and the row.
    """
    if cut not in ("right", "left"):
        raise refuse("read", "cut", '"right" or "left"', cut, "name the side to be cut off")
    if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 2):
        raise refuse("read", "max_length", "a whole number >= 2 or None", max_length, "a row needs two tokens to train")
    numbered = _numbered(source)
    first = next(numbered, None)
    if first is None:
        raise refuse(_name(source), "the data", "at least one row", "none", 'write lines like {"prompt", "completion"}')
    numbered = chain([first], numbered)
    name = recognised(first[1], first[0], form)
    encoder = Encoder(tokenizer, eos=eos, last_turn=last_turn)
    reading = _Reading(name, encoder, max_length, cut, as_chat)
    if mismatched and name not in CROSSED:
        raise refuse("read", "mismatched", "left out unless rows have a prompt and a completion", f"{name} rows",
                     "pass mismatched=False")  # fmt: skip
    while part := list(islice(numbered, _CHUNK)):
        reading.add(part)
    if mismatched:
        reading.mismatch()
    return reading.done(_name(source))


# ---- sources


def _name(source: Any) -> str:
    return jsonl.shown(source) if isinstance(source, str | Path) else "rows"


def _numbered(source: Any) -> Iterator[tuple[str, Row]]:
    """Where each row was found, and the row without its empty columns."""
    for where, row in _found(source):
        if not isinstance(row, Mapping):
            raise refuse(where, "the row", "an object with named columns", repr(row), 'write {"prompt", "completion"}')
        yield where, {key: _listed(value) for key, value in row.items() if value is not None}


def _found(source: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(source, str | Path) and str(source).endswith(".parquet"):
        yield from ((f"{source}, row {n}", row) for n, row in enumerate(_parquet(Path(source)), start=1))
    elif isinstance(source, str | Path):
        yield from ((f"{jsonl.shown(source)}:{n}", row) for n, row in jsonl.rows(source))
    elif isinstance(source, Mapping):
        got = f"a mapping of {', '.join(map(str, list(source)[:5]))}"
        raise refuse("read", "source", "a path, rows, or one split of a dataset", got, 'pass data["train"]')
    elif isinstance(source, Iterable) and not isinstance(source, bytes):
        plain = source.with_format(None) if hasattr(source, "with_format") else source  # a datasets.Dataset
        yield from ((f"row {n}", row) for n, row in enumerate(plain, start=1))
    else:
        raise refuse(
            "read", "source", "a path, rows, or a dataset", repr(source), 'pass [{"prompt", "completion"}, ...]'
        )


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_CHUNK):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise refuse(
            str(path), "the file", "a readable Parquet file", str(error), "check the path and the file"
        ) from error


def _listed(value: Any) -> Any:
    """Arrays and tensors as lists and numbers."""
    return value.tolist() if hasattr(value, "tolist") else value


# ---- rows


@dataclass
class _Reading:
    """Rows read so far, and what was left out."""

    name: str
    encoder: Encoder
    limit: int | None
    cut: str
    as_chat: bool
    out: dict[str, list[Row]] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)  # of the rows kept, where a stream is made of them later
    tokenized: list[Row] = field(default_factory=list)
    count: int = 0
    truncated: int = 0
    empty: int = 0
    beyond: int = 0  # rows of which the cut left nothing to train on
    worded: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.form = FORMS[self.name]
        self.out = {stream: [] for stream in self.form.streams}

    def add(self, part: list[tuple[str, Row]]) -> None:
        self.count += len(part)
        if self.name == "tokenized":
            self.tokenized += [_tokenized(row, where, len(self.encoder.tokenizer)) for where, row in part]
            return
        pieces = [self.form.pieces(row, where, self.as_chat) for where, row in part]
        if self.name == "prompts":
            asked = self.encoder.prompts([piece for (piece,) in pieces])
            for (_, row), ids in zip(part, asked, strict=True):
                self._keep_prompt(ids, row)
            return
        done = iter(self.encoder([piece for of_row in pieces for piece in of_row]))
        for (where, row), of_row in zip(part, pieces, strict=True):
            self._keep([next(done) for _ in of_row], of_row, self._columns(row, where))

    def _keep(self, sequences: list[Tokens], pieces: tuple[Piece, ...], columns: Row) -> None:
        short = self._cut_all(sequences)
        if short is None:
            return
        for number, (stream, (ids, labels)) in enumerate(zip(self.form.streams, short, strict=True)):
            self.out[stream].append({"input_ids": ids, "labels": labels, **(columns if number == 0 else {})})
        if self.name in CROSSED:
            self.pieces += pieces

    def _keep_prompt(self, ids: list[int], row: Row) -> None:
        if not ids:
            self.empty += 1
            return
        long = self.limit is not None and len(ids) > self.limit
        if long and self.cut == "right":  # what asks for the answer would be lost
            self.beyond += 1
            return
        self.truncated += long
        self.out["prompts"].append({"input_ids": self._shortened(ids, ids), "row": row})

    def _cut_all(self, sequences: list[Tokens]) -> list[Tokens] | None:
        """The sequences of one row, cut; None, and counted, where one has nothing left to train on."""
        if not all(_trains(labels) for _, labels in sequences):
            self.empty += 1
            return None
        if self.limit is None or all(len(ids) <= self.limit for ids, _ in sequences):
            return sequences
        short = [(self._shortened(ids, ids), self._shortened(labels, ids)) for ids, labels in sequences]
        if not all(_trains(labels) for _, labels in short):
            self.beyond += 1
            return None
        self.truncated += 1
        return short

    def _shortened(self, values: list[Any], ids: list[int]) -> list[Any]:
        """``values``, one per id, without those that are cut off."""
        if self.limit is None or len(ids) <= self.limit:
            return values
        if self.cut == "right":
            return values[: self.limit]
        bos = self.encoder.tokenizer.bos_token_id
        if bos is not None and ids[0] == bos:
            return [values[0], *values[len(values) - self.limit + 1 :]]
        return values[len(values) - self.limit :]

    def _columns(self, row: Row, where: str) -> Row:
        """Numbers, and lists of them, that come along; the verdict of an unpaired row."""
        columns: Row = {}
        for name, value in row.items():
            if name in self.form.columns or name in ("tools", "chat_template_kwargs", "input_ids", "labels"):
                continue
            if _number(value) or (isinstance(value, list) and value and all(map(_number, value))):
                columns[name] = value
            else:
                self.worded[name] = None
        if self.name == "unpaired":
            verdict = need(row, "label", where)
            if not isinstance(verdict, bool) and verdict not in (0, 1):
                raise refuse(where, "label", "true (desirable) or false", repr(verdict), MEND)
            columns["desirable"] = bool(verdict)
        return columns

    def mismatch(self) -> None:
        """The stream "mismatched": each completion after the next row's prompt, the last one's after the first's."""
        if len(self.pieces) < 2:
            raise refuse("read", "mismatched", "asked of at least two rows", len(self.pieces), "add rows")
        kept, found = [], []
        for start in range(0, len(self.pieces), _CHUNK):
            chosen = range(start, min(start + _CHUNK, len(self.pieces)))
            following = [self.pieces[(i + 1) % len(self.pieces)] for i in chosen]
            crossed = self.encoder([_crossed(p, self.pieces[i]) for p, i in zip(following, chosen, strict=True)])
            for i, sequence in zip(chosen, crossed, strict=True):
                before = self.truncated
                short = self._cut_all([sequence])
                self.truncated = before  # counted with the row itself
                if short is not None:
                    kept.append(self.out["x"][i])
                    found.append({"input_ids": short[0][0], "labels": short[0][1]})
        self.out["x"], self.out["mismatched"] = kept, found

    def done(self, name: str) -> Rows:
        self._cut_tokenized()
        rows = Rows(self.out)
        rows.form, rows.count, rows.truncated = self.name, self.count, self.truncated
        rows.dropped = self.empty + self.beyond
        if not any(rows.values()):
            got = f"none of {self.count} ({self.beyond} cut away, {self.empty} had none)"
            do = 'raise max_length, or pass cut="left"' if self.beyond else "give completions that are not empty"
            raise refuse(name, "the data", "at least one row with a token to train on", got, do)
        told = [f"{self.truncated} of {self.count} rows were cut to {self.limit} tokens"] if self.truncated else []
        why = {
            f"nothing to train on is left within {self.limit} tokens": self.beyond,
            "nothing to train on": self.empty,
        }
        lost = [f"{n} of {self.count} rows were left out: {what}" for what, n in why.items() if n]
        if self.worded:
            told.append(f"columns without numbers were left out: {', '.join(self.worded)}")
        rows.notes = (*lost, *told, *self.encoder.notes)
        if lost:
            warnings.warn(f"{name}: {'; '.join(lost)}", stacklevel=3)
        return rows

    def _cut_tokenized(self) -> None:
        """Cut tokenized rows, with the columns that hold one entry per id in every row."""
        aligned: set[str] = set.intersection(
            *({k for k, v in row.items() if isinstance(v, list) and len(v) == len(row["input_ids"])}
              for row in self.tokenized)
        ) if self.tokenized else set()  # fmt: skip
        for row in self.tokenized:
            if self._cut_all([(row["input_ids"], row["labels"])]) is not None:
                short = {k: self._shortened(v, row["input_ids"]) if k in aligned else v for k, v in row.items()}
                self.out["x"].append(short)


def _tokenized(row: Row, where: str, vocabulary: int) -> Row:
    """Ids, labels and columns of a row that is tokenised already; padding is taken out."""
    ids = need(row, "input_ids", where)
    if not isinstance(ids, list) or not ids or not all(type(i) is int for i in ids):
        raise refuse(where, "input_ids", "a list of token ids", repr(ids), MEND)
    if min(ids) < 0 or max(ids) >= vocabulary:
        wrong = min(ids) if min(ids) < 0 else max(ids)
        raise refuse(where, "input_ids", f"in [0, {vocabulary})", wrong, "tokenise with this model's tokenizer")
    found = {k: v for k, v in row.items() if not isinstance(v, str | Mapping)}
    mask = next(
        (found.pop(k) for k in ("completion_mask", "assistant_masks") if k in found and "labels" not in row), None
    )
    if mask is not None:
        found["labels"] = [i if m else IGNORED for i, m in zip(ids, mask)] if len(mask) == len(ids) else mask
    labels = found.setdefault("labels", list(ids))
    attended = found.pop("attention_mask", None)
    for what, values in (("labels", labels), ("attention_mask", attended)):
        if values is not None and (not isinstance(values, list) or len(values) != len(ids)):
            got = f"{len(values) if isinstance(values, list) else repr(values)} for {len(ids)} ids"
            raise refuse(where, what, "a list with one entry per id", got, MEND)
    if attended is None or all(attended):
        return found
    long = {k for k, v in found.items() if isinstance(v, list) and len(v) == len(ids)}
    return {k: [x for x, m in zip(v, attended) if m] if k in long else v for k, v in found.items()}


def _crossed(asked: Piece, said: Piece) -> Piece:
    if isinstance(asked, Text) and isinstance(said, Text):
        return Text(asked.prompt, said.completion, asked.where)
    if isinstance(asked, Chat) and isinstance(said, Chat):
        messages = (*asked.messages[: asked.start], *said.messages[said.start :])
        return Chat(messages, asked.start, asked.where, asked.options)
    raise refuse(asked.where, "completion", "of the kind of the row before", "text beside messages", "use one of them")


def _trains(labels: list[int]) -> bool:
    """Whether a token is trained on; the first has nothing before it that could predict it."""
    return labels[1:].count(IGNORED) < len(labels) - 1


def _number(value: Any) -> bool:
    return isinstance(value, int | float)
