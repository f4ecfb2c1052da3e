"""What a model reads: texts and conversations as token ids, with the tokenizer's own template and special tokens."""

from __future__ import annotations

import json
from typing import Any

from plumbline.core.errors import refuse


def text_in(value: Any, field: str, where: str, *, empty: bool = False) -> str:
    """``value`` if it is text that can be encoded, else a refusal that names the field and the place."""
    if not isinstance(value, str) or not (empty or value.strip()):
        expected = "a string" if empty else "a string that is not empty"
        raise refuse(where, field, expected, repr(value), "mend this line")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        got = f"half of a surrogate pair at character {error.start + 1}"
        raise refuse(where, field, "valid Unicode", got, "mend the \\ud... escape in this line") from error
    return value


def messages_in(value: Any, field: str, where: str) -> tuple[dict[str, Any], ...]:
    """A conversation: objects with ``role`` and ``content``; contents that are lists of text parts are joined."""
    do = 'write [{"role": "user", "content": "..."}]'
    if not isinstance(value, list | tuple) or not value:
        raise refuse(where, field, "a list of messages that is not empty", repr(value), do)
    messages = []
    for message in value:
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            raise refuse(where, field, "objects with role and content", repr(message), do)
        text_in(message["role"], f"{field} role", where)
        content = content_of(message, where)
        text_in(
            json.dumps(message, ensure_ascii=False, default=repr), field, where
        )  # other keys reach the template too
        messages.append({**message, "content": content})
    if not any(message["content"].strip() for message in messages):
        raise refuse(where, field, "messages that say something", "empty ones", do)
    return tuple(messages)


def content_of(message: dict[str, Any], where: str) -> str:
    """A message's text, also where it is a list of text parts."""
    content = message["content"]
    if isinstance(content, list) and content and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        content = "".join(text_in(part.get("text"), "content", where, empty=True) for part in content)
    return text_in(content, "content", where, empty=True)


def render_chat(messages: list[dict[str, Any]], tokenizer: Any, where: str, do: str) -> tuple[str, str | None]:
    """A conversation through the chat template, generation prompt added; and a warning or None.

    A template that knows no system role gets it at the head of the first user message.

    Raises:
        InputError: the template refuses the conversation; ``do`` is the remedy.
    """
    text, fault = _apply(tokenizer, messages)
    if text is not None:
        return text, None
    folded = _fold_system(messages)
    text = None if folded is None else _apply(tokenizer, folded)[0]
    if text is not None:
        return text, "the chat template has no system role: system text was put before the first user message"
    raise refuse(where, "messages", "a conversation the chat template accepts", fault, do)


def _apply(tokenizer: Any, messages: list[dict[str, Any]]) -> tuple[str | None, str]:
    """The rendered conversation, or None and what the template says against it."""
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)), ""
    except Exception as error:  # a template is a program of the checkpoint's author and may raise anything
        return None, str(error) or type(error).__name__


def _fold_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    first = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return [first, *messages[2:]]


def encode(text: str, tokenizer: Any, *, special: bool) -> list[int]:
    """Token ids of one text.

    Args:
        special: True for raw text, which gets the special tokens that the tokenizer puts in front by default, but no
            end-of-sequence token behind and no second BOS; False for text from a chat template, which has its own, and
            for completions.
    """
    inner = list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    if not special:
        return inner
    ids = list(tokenizer(text, add_special_tokens=True, verbose=False).input_ids)
    while ids and ids[-1] == tokenizer.eos_token_id and len(ids) > len(inner) and ids[len(ids) - len(inner) :] != inner:
        ids.pop()
    bos = tokenizer.bos_token_id
    return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids
