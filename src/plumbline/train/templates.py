"""Texts and conversations as token ids, with a label on every token that is trained on and -100 on the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from plumbline.core.errors import refuse
from plumbline.core.scored import IGNORED
from plumbline.models.prompts import encode, render_chat

Message = dict[str, Any]
Tokens = tuple[list[int], list[int]]  # ids and labels

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MEND = "mend the conversation, or change the tokenizer's chat template"


@dataclass(frozen=True, slots=True)
class Text:
    """Raw text: the completion of a prompt; without a prompt all of it is trained on."""

    prompt: str | None
    completion: str
    where: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation; the assistant's turns from message number ``start`` on are trained on.

    ``options`` reach the chat template: tools, and what else it reads.
    """

    messages: tuple[Message, ...]
    start: int
    where: str
    options: dict[str, Any]


Piece = Text | Chat


def encode_all(texts: Iterable[str], tokenizer: Any, *, special: bool) -> dict[str, list[int]]:
    """Token ids by text, as ``models.prompts.encode`` has them, in one call of the tokenizer; equal texts once."""
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return {}
    lead = _lead(tokenizer) if special else []
    if lead is None:
        return {text: encode(text, tokenizer, special=True) for text in distinct}
    plain = tokenizer(distinct, add_special_tokens=False, verbose=False, return_attention_mask=False).input_ids
    twice = [tokenizer.bos_token_id] * 2 if lead and tokenizer.bos_token_id is not None else None
    found = {}
    for text, ids in zip(distinct, plain, strict=True):
        whole = [*lead, *ids]
        found[text] = whole[1:] if whole[:2] == twice else whole
    return found


def _lead(tokenizer: Any) -> list[int] | None:
    """The special tokens that raw text gets in front; None where the tokenizer does more than that."""
    plain, whole = (encode("a b", tokenizer, special=special) for special in (False, True))
    extra = len(whole) - len(plain)
    return whole[:extra] if extra >= 0 and whole[extra:] == plain else None


def encode_continuations(texts: Iterable[str], tokenizer: Any) -> dict[str, list[int]]:
    """Token ids by text of what goes on from a prompt, without the space that some tokenizers put before any text."""
    distinct = list(dict.fromkeys(texts))
    apart = [*encode("a", tokenizer, special=False), *encode("b", tokenizer, special=False)]
    found = encode_all(distinct, tokenizer, special=False)
    if tokenizer.decode(apart, clean_up_tokenization_spaces=False) == "ab":
        return found
    mark = encode("\n", tokenizer, special=False)
    behind = encode_all([f"\n{text}" for text in distinct], tokenizer, special=False)
    for text in distinct:
        ids = behind[f"\n{text}"]
        if ids[: len(mark)] == mark:
            found[text] = ids[len(mark) :]
    return found


@dataclass
class Encoder:
    """Pieces to ids and labels, many at a time.

    Args:
        eos: raw text ends with the end-of-sequence token. last_turn: of a conversation only the assistant's last turn
            is trained on. notes: what a person should know, filled in on the way.
    """

    tokenizer: Any
    eos: bool = True
    last_turn: bool = False
    notes: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._special = frozenset(self.tokenizer.all_special_ids)
        self._blank: dict[int, bool] = {}  # whether an id is white space

    def __call__(self, pieces: Sequence[Piece]) -> list[Tokens]:
        """Ids and labels of whole sequences, in order."""
        chats = [p for p in pieces if isinstance(p, Chat)]
        texts = [p for p in pieces if isinstance(p, Text)]
        of_chats = iter(self._marked(chats) if chats and self._has_marks() else self._by_prefix(chats))
        of_texts = iter(self._texts(texts))
        return [next(of_chats if isinstance(p, Chat) else of_texts) for p in pieces]

    def prompts(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """Ids of prompts alone: raw text with its special tokens, conversations with the generation prompt."""
        chats = {id(p): self._render(p, p.start, ask=True) for p in pieces if isinstance(p, Chat)}
        raw = encode_all((p.prompt or "" for p in pieces if isinstance(p, Text)), self.tokenizer, special=True)
        said = encode_all(chats.values(), self.tokenizer, special=False)
        return [list(said[chats[id(p)]] if isinstance(p, Chat) else raw[p.prompt or ""]) for p in pieces]

    # ---- raw text

    def _texts(self, texts: Sequence[Text]) -> list[Tokens]:
        end = self.tokenizer.eos_token_id
        if texts and self.eos and end is None:
            raise refuse(
                "read", "tokenizer", "one with an end-of-sequence token", "none", "set eos_token, or eos=False"
            )
        whole = encode_all((t.completion for t in texts if not t.prompt), self.tokenizer, special=True)
        heads = encode_all((t.prompt for t in texts if t.prompt), self.tokenizer, special=True)
        tails = encode_continuations((t.completion for t in texts if t.prompt), self.tokenizer)
        found = []
        for text in texts:
            head = heads[text.prompt] if text.prompt else []
            tail = tails[text.completion] if text.prompt else whole[text.completion]
            closing = [end] if self.eos and tail[-1:] != [end] else []
            found.append(([*head, *tail, *closing], [*[IGNORED] * len(head), *tail, *closing]))
        return found

    # ---- conversations

    def _has_marks(self) -> bool:
        """Whether the chat template itself says which of its tokens are the assistant's."""
        if not getattr(self.tokenizer, "chat_template", None):
            do = "set tokenizer.chat_template, or give prompts and completions as strings"
            raise refuse("read", "tokenizer", "one with a chat template, for messages", "none", do)
        template = self.tokenizer.get_chat_template()
        return bool(getattr(self.tokenizer, "is_fast", False) and _GENERATION.search(template))

    def _marked(self, chats: Sequence[Chat]) -> list[Tokens]:
        """By the template's ``{% generation %}`` blocks."""
        said = self._taken(chats)
        before = {id(c): self._render(c, c.start, ask=True) for c in chats if _assistants(c.messages[: c.start])}
        ids_before = encode_all(before.values(), self.tokenizer, special=False)
        found = []
        for chat, (ids, mask) in zip(chats, said, strict=True):
            first = 0
            if id(chat) in before:
                head = ids_before[before[id(chat)]]
                self._goes_on(chat, head, ids, chat.start)
                first = len(head)
            spans = _runs(mask, first)
            found.append(self._labelled(ids, spans[-1:] if self.last_turn else spans))
        return found

    def _taken(self, chats: Sequence[Chat]) -> list[tuple[list[int], list[int]]]:
        """Ids and the template's mask; all at once, and one by one where one of them needs care."""
        how: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
        if not any(chat.options for chat in chats):
            try:
                got = self.tokenizer.apply_chat_template([list(c.messages) for c in chats], **how)
                return list(zip(got["input_ids"], got["assistant_masks"], strict=True))
            except Exception:  # a template may raise anything; below it is found out for which row
                pass
        found = []
        for chat in chats:
            kept: dict[str, Any] = {}

            def apply(messages: list[Message], chat: Chat = chat, kept: dict[str, Any] = kept, **_: Any) -> str:
                kept.update(self.tokenizer.apply_chat_template(messages, **how, **chat.options))
                return ""

            self._asked(apply, list(chat.messages), chat.where)
            found.append((kept["input_ids"], kept["assistant_masks"]))
        return found

    def _by_prefix(self, chats: Sequence[Chat]) -> list[Tokens]:
        """By rendering up to each turn of the assistant: what comes after it and ends the turn is trained on."""
        plans = []
        for chat in chats:
            turns = [i for i in _assistants(chat.messages) if i >= max(chat.start, 1)]  # nothing asks for the first
            turns = turns[-1:] if self.last_turn else turns
            whole = self._render(chat, len(chat.messages), ask=False)
            last = len(chat.messages) - 1
            ends = [
                (i, self._render(chat, i, ask=True), whole if i == last else self._render(chat, i + 1, ask=False))
                for i in turns
            ]
            plans.append((chat, whole, ends))
        texts = (text for _, whole, ends in plans for text in (whole, *(t for _, *both in ends for t in both)))
        ids = encode_all(texts, self.tokenizer, special=False)
        found = []
        for chat, whole, ends in plans:
            spans = []
            for i, before, after in ends:
                self._goes_on(chat, ids[before], ids[whole], i)
                self._goes_on(chat, ids[after], ids[whole], i)
                low, high = len(ids[before]), len(ids[after])
                spans.append((low, self._turn_end(ids[whole], low, high)))
            found.append(self._labelled(ids[whole], spans))
        return found

    def _goes_on(self, chat: Chat, head: list[int], whole: list[int], turn: int) -> None:
        """What was said before a turn must be the beginning of the whole, token by token, as it is at inference."""
        if whole[: len(head)] != head:
            do = "train on the last turn alone (last_turn), or mark the assistant's text with {% generation %}"
            got = f"another rendering of what surrounds message {turn + 1} once the conversation goes on"
            raise refuse(chat.where, "the chat template", "one that only ever appends", got, do)

    def _turn_end(self, ids: list[int], low: int, high: int) -> int:
        """``high`` without the white space that a template writes behind the token that ends the turn."""
        end = high
        while end > low and ids[end - 1] not in self._special and self._is_blank(ids[end - 1]):
            end -= 1
        return end if end > low and ids[end - 1] in self._special else high

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            self._blank[token] = self.tokenizer.decode([token]).isspace()
        return self._blank[token]

    def _labelled(self, ids: list[int], spans: Sequence[tuple[int, int]]) -> Tokens:
        labels = [IGNORED] * len(ids)
        for low, high in spans:
            labels[low:high] = ids[low:high]
        if spans and ids[spans[-1][1] - 1] not in self._special:
            self.notes["the chat template trains no token that ends the assistant's turn: the model may not stop"] = (
                None
            )
        return list(ids), labels

    def _render(self, chat: Chat, upto: int, *, ask: bool) -> str:
        """The first ``upto`` messages through the template; ``ask`` adds the generation prompt."""

        def apply(messages: list[Message], **_: Any) -> str:
            how = {"tokenize": False, "add_generation_prompt": ask, **chat.options}
            return str(self.tokenizer.apply_chat_template(messages, **how))

        return self._asked(apply, list(chat.messages[:upto]), chat.where) if upto else ""

    def _asked(self, apply: Callable[..., str], messages: list[Message], where: str) -> str:
        """The template's text by ``render_chat``, which folds a system message or refuses in one line."""
        text, note = render_chat(messages, SimpleNamespace(apply_chat_template=apply), where, _MEND)
        if note is not None:
            self.notes[note] = None
        return text


def _assistants(messages: Sequence[Message]) -> list[int]:
    return [i for i, message in enumerate(messages) if message["role"] == "assistant"]


def _runs(mask: Sequence[int], first: int) -> list[tuple[int, int]]:
    """Stretches of ones from position ``first`` on."""
    marks, found = bytes(mask), []
    low = marks.find(1, first)
    while low >= 0:
        high = marks.find(0, low)
        high = len(marks) if high < 0 else high
        found.append((low, high))
        low = marks.find(1, high)
    return found
