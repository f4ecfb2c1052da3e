"""The shapes in which training data comes, and how a row of each becomes pieces of text or conversation.

==================  =========================================================================================
form                columns of a row
==================  =========================================================================================
prompt-completion   ``prompt`` and ``completion``: strings, or lists of messages
messages            ``messages``: ``[{"role": ..., "content": ...}, ...]``; the assistant's turns are trained on
text                ``text``: all of it is trained on
preference          ``chosen`` and ``rejected``, with a ``prompt`` or beginning alike (what they share is the prompt)
unpaired            ``prompt``, ``completion`` and ``label`` (true: desirable)
prompts             ``prompt``, ``messages`` or ``question``, usually with an ``answer`` for a verifier
tokenized           ``input_ids``, optionally ``labels``, ``completion_mask`` or ``assistant_masks``
==================  =========================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from plumbline.core.errors import refuse
from plumbline.models.prompts import messages_in, text_in
from plumbline.train.templates import Chat, Message, Piece, Text

Row = dict[str, Any]
CROSSED = ("prompt-completion", "unpaired")  # forms of which the stream "mismatched" can be made
FormName = Literal["prompt-completion", "messages", "text", "preference", "unpaired", "prompts", "tokenized"]
MEND = "mend this row"


@dataclass(frozen=True)
class Form:
    """One shape of data: its streams, the columns whose text is used up, and how a row becomes pieces."""

    streams: tuple[str, ...]
    columns: tuple[str, ...]
    pieces: Callable[[Row, str, bool], tuple[Piece, ...]]


def recognised(row: Row, where: str, form: str | None = None) -> str:
    """The name of the form that a row's columns show, or the one asked for."""
    if form is not None:
        if form not in FORMS:
            raise refuse("read", "form", f"one of {', '.join(FORMS)}", form, "leave it out to have it recognised")
        return form
    has = row.keys().__contains__
    spoken = row.get("messages")
    ends = isinstance(spoken, list) and bool(spoken) and isinstance(spoken[-1], Mapping)
    answered = ends and spoken[-1].get("role") == "assistant"
    signs = {
        "tokenized": has("input_ids"),
        "preference": has("chosen") and has("rejected"),
        "unpaired": has("prompt") and has("completion") and has("label"),
        "prompt-completion": has("prompt") and has("completion"),
        "messages": has("messages") and (answered or not has("answer")),
        "prompts": has("prompt") or has("messages") or (has("question") and has("answer")),
        "text": has("text"),
    }
    found = next((name for name, sign in signs.items() if sign), None)
    if found is None:
        known = "prompt and completion, messages, text, chosen and rejected, prompt and answer, or input_ids"
        got = f"only {', '.join(map(repr, list(row)[:6]))}" if row else "an empty object"
        raise refuse(where, "columns", known, got, "rename the columns")
    return found


def need(row: Row, column: str, where: str) -> Any:
    """A column that the form cannot do without."""
    if column not in row:
        got = f"only {', '.join(map(repr, list(row)[:6]))}"
        raise refuse(where, column, "in every row, as in the first", got, MEND)
    return row[column]


def _talk(value: Any, column: str, where: str) -> list[Message]:
    """Messages without empty fields (Arrow fills them in); a turn that only calls tools has empty content."""
    if not isinstance(value, list | tuple) or not all(isinstance(m, Mapping) for m in value):
        raise refuse(where, column, "text or a list of messages", repr(value), MEND)
    turns = [{key: field for key, field in m.items() if field is not None} for m in value]
    return [{"content": "", **turn} if "tool_calls" in turn else turn for turn in turns]


def _chat(before: list[Message], after: list[Message], row: Row, where: str) -> Chat:
    messages = messages_in([*before, *after], "messages", where)
    options = dict(row.get("chat_template_kwargs") or {})
    tools = row.get("tools")
    if tools:
        try:
            options["tools"] = json.loads(tools) if isinstance(tools, str) else tools
        except ValueError as error:
            raise refuse(where, "tools", "a list, or JSON of one", tools, MEND) from error
    if after and not any(m["role"] == "assistant" for m in messages[len(before) :]):
        raise refuse(where, "messages", "with a turn of the assistant to train on", "none", MEND)
    return Chat(messages, len(before), where, options)


def _pair(prompt: Any, completion: Any, column: str, row: Row, where: str, as_chat: bool) -> Piece:
    if isinstance(prompt, str) and isinstance(completion, str) and not as_chat:
        text = text_in(completion, column, where, empty=True)
        return Text(text_in(prompt, "prompt", where, empty=True), text, where)
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else _talk(prompt, "prompt", where)
    said = [{"role": "assistant", "content": completion}]
    return _chat(asked, said if isinstance(completion, str) else _talk(completion, column, where), row, where)


def _completion(row: Row, where: str, as_chat: bool) -> tuple[Piece, ...]:
    prompt, completion = need(row, "prompt", where), need(row, "completion", where)
    return (_pair(prompt, completion, "completion", row, where, as_chat),)


def _text(row: Row, where: str, as_chat: bool) -> tuple[Piece, ...]:
    return (Text(None, text_in(need(row, "text", where), "text", where), where),)


def _messages(row: Row, where: str, as_chat: bool) -> tuple[Piece, ...]:
    return (_chat([], _talk(need(row, "messages", where), "messages", where), row, where),)


def _prompt(row: Row, where: str, as_chat: bool) -> tuple[Piece, ...]:
    column = next((name for name in ("prompt", "messages", "question") if name in row), "prompt")
    value = need(row, column, where)
    if isinstance(value, str) and not as_chat:
        return (Text(text_in(value, column, where), "", where),)
    turns = [{"role": "user", "content": value}] if isinstance(value, str) else _talk(value, column, where)
    while turns and turns[-1].get("role") == "assistant":  # the answer is the model's to give
        turns = turns[:-1]
    return (_chat(turns, [], row, where),)


def _preference(row: Row, where: str, as_chat: bool) -> tuple[Piece, ...]:
    prompt, chosen, rejected = row.get("prompt"), need(row, "chosen", where), need(row, "rejected", where)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise refuse(where, "chosen and rejected", "both text or both messages", "one of each", MEND)
    if isinstance(chosen, str):
        if prompt is None:
            prompt = chosen[: _shared_text(chosen, rejected)]
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    else:
        chosen, rejected = _talk(chosen, "chosen", where), _talk(rejected, "rejected", where)
        if prompt is None or (chosen and chosen[0].get("role") in ("system", "user")):  # whole conversations
            alike = [a == b for a, b in zip(chosen[:-1], rejected[:-1])]
            shared = alike.index(False) if False in alike else len(alike)
            if not shared:
                raise refuse(where, "chosen and rejected", "conversations that begin alike", "none in common", MEND)
            prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    return tuple(
        _pair(prompt, said, name, row, where, as_chat) for name, said in (("chosen", chosen), ("rejected", rejected))
    )


def _shared_text(a: str, b: str) -> int:
    """How many characters two texts have in common at their beginning, not counting a word that is begun."""
    n = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    while n and not a[n - 1].isspace():
        n -= 1
    return len(a[:n].rstrip())  # the space goes with the answer


FORMS: dict[str, Form] = {
    "prompt-completion": Form(("x",), ("prompt", "completion"), _completion),
    "messages": Form(("x",), ("messages",), _messages),
    "text": Form(("x",), ("text",), _text),
    "preference": Form(("chosen", "rejected"), ("prompt", "chosen", "rejected"), _preference),
    "unpaired": Form(("x",), ("prompt", "completion", "label"), _completion),
    "prompts": Form(("prompts",), (), _prompt),
    "tokenized": Form(("x",), (), lambda row, where, as_chat: ()),
}
