"""Prompts of a decoding run: read from JSONL, rendered for each model, checked against what it can read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from plumbline.core.errors import refuse
from plumbline.kernels import jsonl
from plumbline.models.lm import LM
from plumbline.models.prompts import content_of, encode, messages_in, render_chat, text_in

Asked = str | tuple[dict[str, Any], ...]
Place = tuple[int, str]  # the number of a rule in its line, and the role in it
_EXAMPLE = '{"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}'


@dataclass(frozen=True)
class Row:
    """One prompt.

    Attributes:
        id: unique; ``<file stem>:<line>`` where the file gave none. asked: text, or the conversation before the answer.
        own: role -> what the model in that role is asked instead. where: file and line, for messages.
    """

    id: str
    asked: Asked
    own: dict[str, Asked] = field(default_factory=dict)
    where: str = "--prompt"

    @property
    def text(self) -> str:
        """The prompt for people; of a conversation its last turn."""
        return self.asked if isinstance(self.asked, str) else str(self.asked[-1]["content"])


def read(path: str | Path, roles: Iterable[str] = (), limit: int | None = None) -> list[Row]:
    """Rows ``{"prompt": ...}`` or ``{"messages": [...]}``, optionally with ``id`` and a field for each of ``roles``.

    A conversation that ends with the assistant's turn is asked without it. Other fields are ignored.

    Raises:
        InputError: in one line that names the file and the line.
    """
    name, stem = jsonl.shown(path), jsonl.stem(path)
    rows: dict[str, Row] = {}
    for n, value in jsonl.rows(path):
        if limit is not None and len(rows) >= limit:
            break
        row = _row(value, f"{name}:{n}", f"{stem}:{n}", roles)
        if row.id in rows:
            do = "rename one of the two"
            raise refuse(row.where, "id", f"unique ({rows[row.id].where} has the same)", repr(row.id), do)
        rows[row.id] = row
    if not rows:
        raise refuse(name, "the file", "one JSON object per line", "an empty file", f"write lines like {_EXAMPLE}")
    return list(rows.values())


def gather(
    path: Path | None, prompt: str | None, peer_prompts: Sequence[str], roles: set[str], limit: int | None,
    output: Path | None,
) -> list[Row]:  # fmt: skip
    """Rows of a file, or the one of ``prompt``, with ``peer_prompts`` ("ROLE=TEXT") where they say nothing else.

    Those whose id ``output`` holds already are left out.
    """
    if (path is None) == (prompt is None):
        raise refuse("decode", "the input", "one of --prompts FILE and --prompt TEXT", "both" if path else "neither",
                     'try --prompt "The river is"')  # fmt: skip
    given: dict[str, Asked] = {}
    for pair in peer_prompts:
        role, equals, text = pair.partition("=")
        if not equals or role not in roles:
            raise refuse("decode", "--peer-prompt", f"ROLE=TEXT with a role of {', '.join(sorted(roles)) or '--with'}",
                         pair, "name a role that --with gives a model")  # fmt: skip
        given[role] = text
    if prompt is not None:
        rows = [Row("prompt", text_in(prompt, "--prompt", "decode"))]
    else:
        rows = read(path or "-", roles, limit)
    done = finished(output) if output is not None else set()
    return [replace(row, own={**given, **row.own}) for row in rows if row.id not in done]


def _row(value: Any, where: str, default_id: str, roles: Iterable[str]) -> Row:
    if not isinstance(value, dict):
        raise refuse(where, "the line", "a JSON object", repr(value), f"write {_EXAMPLE}")
    given = {key: found for key, found in value.items() if found is not None}
    there = [name for name in ("prompt", "messages") if name in given]
    if len(there) != 1:
        got = " and ".join(there) or f"only {', '.join(map(repr, list(given)[:5])) or 'an empty object'}"
        raise refuse(where, "the input", "just one of prompt, messages", got, f"write {_EXAMPLE}")
    identity = given.get("id", default_id)
    identity = str(identity) if type(identity) is int else text_in(identity, "id", where)
    own = {role: _asked(given[role], role, where, empty=True) for role in roles if role in given}
    return Row(identity, _asked(given[there[0]], there[0], where), own, where)


def _asked(value: Any, name: str, where: str, *, empty: bool = False) -> Asked:
    if isinstance(value, str):
        return text_in(value, name, where, empty=empty)
    messages = messages_in(value, name, where)
    before = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    if not before:
        raise refuse(where, name, "a conversation with a user's turn", "the assistant's turn only", "add one")
    return before


def ids_of(asked: Asked, lm: LM, where: str, room: int) -> list[int]:
    """What the model reads: conversations through its own chat template, or joined by newlines where it has none.

    An empty text is the token that opens a text (bos, else eos).

    Raises:
        InputError: a prompt of no tokens, or one that leaves no ``room`` new tokens in the model's context.
    """
    if not isinstance(asked, str) and lm.has_chat_template:
        text, _ = render_chat([dict(m) for m in asked], lm.tokenizer, where, "change the messages")
        ids = encode(text, lm.tokenizer, special=False)
    else:
        text = asked if isinstance(asked, str) else "\n".join(content_of(m, where) for m in asked)
        ids = encode(text, lm.tokenizer, special=True)
    opening = [t for t in (lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id) if t is not None]
    ids = ids or (opening[:1] if text == "" else [])
    if not ids:
        raise refuse(where, "the prompt", "at least one token", f"none for {lm.name}", "ask something")
    if lm.context is not None and len(ids) + room > lm.context:
        raise refuse(where, "the prompt", f"within {lm.name}'s context of {lm.context} with {room} new tokens",
                     f"{len(ids)} tokens", "shorten it, or lower --max-new-tokens")  # fmt: skip
    return ids


def own_ids(row: Row, places: dict[Place, LM], main: LM, room: int) -> dict[Place, list[int]]:
    """Place -> what its model reads for this row where that is not what the main model reads."""
    said = ids_of(row.asked, main, row.where, room)
    found: dict[Place, list[int]] = {}
    for place, lm in places.items():
        role = place[1]
        asked = row.own.get(role, row.asked)
        if lm is main and role not in row.own:
            continue
        templated = not isinstance(asked, str)
        ids = ids_of(asked, lm, f"{row.where} {role}", room) if templated or role in row.own else said
        if lm.context is not None and len(ids) + room > lm.context:
            ids_of(asked, lm, f"{row.where} {role}", room)
        if ids != said:
            found[place] = ids
    return found


def finished(path: Path) -> set[str]:
    """Ids of the rows that a file holds already; a last line that was cut off is taken away."""
    if not path.exists():
        return set()
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with open(path, "r+b") as file:
            file.truncate(len(whole))
    return {str(row["id"]) for _, row in jsonl.rows(path) if isinstance(row, dict) and "id" in row}


def spread(ids: Sequence[Sequence[int]], own: Sequence[dict[Place, list[int]]], place: Place) -> list[list[int]] | None:
    """The prompts of one place for one batch, the main prompt where a row has none; None where no row has one."""
    if not any(place in found for found in own):
        return None
    return [found.get(place, list(main)) for main, found in zip(ids, own, strict=True)]
