"""Rollouts from JSONL: what the engine was asked, what it drew, and the log-probabilities it reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.core.errors import refuse
from plumbline.kernels import jsonl
from plumbline.models.lm import LM
from plumbline.models.prompts import encode, messages_in, render_chat, text_in

_EXAMPLE = '{"prompt_ids": [...], "completion_ids": [...], "sampler_logps": [...]}'
_SLACK = 1e-3  # engines round: a log-probability a little above 0 is 0
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Rollout:
    """One answer of the engine.

    Attributes:
        id: unique; ``<file stem>:<line>`` where the file gave none. where: file and line, for messages.
        prompt, completion: ids [P], [C]. sampler: the engine's log-probabilities [C], NaN where it gave none.
        counted: [C], False for tokens that the engine did not draw (tool results).
        temperature: by which the engine divided its logits. support: kept ids of each token, or None.
    """

    id: str
    where: str
    prompt: Ids
    completion: Ids
    sampler: NDArray[np.float32]
    counted: NDArray[np.bool_]
    temperature: float = 1.0
    support: tuple[Ids, ...] | None = None

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.completion)


def read(path: str | Path, lm: LM, *, limit: int | None = None) -> tuple[list[Rollout], list[str]]:
    """Rows with ``prompt_ids``, ``prompt`` or ``messages``, and with ``completion_ids`` and ``sampler_logps``.

    Optional: ``temperature``; ``support``, the kept ids of each token (lists, or ``{"token_ids", "offsets"}`` as vLLM
    gives them); ``completion_mask``, 0 for tokens that the engine did not draw; ``id``. A log-probability is a number,
    null, or an object by token id of which the drawn token's is taken. Other fields are ignored.

    Returns:
        The rows that have an answer, and what a reader should know of the rest.

    Raises:
        InputError: in one line that names the file and the line.
    """
    name, stem = jsonl.shown(path), jsonl.stem(path)
    found: dict[str, Rollout] = {}
    empty = tokenised = 0
    for n, value in jsonl.rows(path):
        if limit is not None and len(found) >= limit:
            break
        row, from_text = _row(value, f"{name}:{n}", f"{stem}:{n}", lm)
        if row.id in found:
            raise refuse(row.where, "id", f"unique ({found[row.id].where} has the same)", repr(row.id), "rename one")
        empty += not row.counted.any()
        tokenised += from_text
        if row.counted.any():
            found[row.id] = row
    if not found:
        got = f"{empty} rows without an answer" if empty else "an empty file"
        raise refuse(name, "the file", "one rollout per line", got, f"write lines like {_EXAMPLE}")
    notes = [f"{empty} rows without an answer were left out"] * bool(empty)
    if tokenised:
        notes.append(f"{tokenised} prompts were turned into ids by {lm.name}'s tokenizer; where the engine read other "
                     "ids the numbers are wrong: write prompt_ids")  # fmt: skip
    return list(found.values()), notes


def _row(value: Any, where: str, default_id: str, lm: LM) -> tuple[Rollout, bool]:
    if not isinstance(value, dict):
        raise refuse(where, "the line", "a JSON object", repr(value), f"write {_EXAMPLE}")
    given = {key: found for key, found in value.items() if found is not None}
    prompt, from_text = _prompt(given, where, lm)
    if "completion_ids" not in given:
        do = "keep the ids that the engine drew; text cannot be turned back into them"
        raise refuse(where, "completion_ids", "a list of token ids", f"only {', '.join(map(repr, given))}", do)
    vocab = int(lm.model.get_input_embeddings().weight.shape[0])
    completion = ids_in(given["completion_ids"], "completion_ids", where, vocab)
    sampler = _logps(given.get("sampler_logps"), completion, where)
    mask = given.get("completion_mask", [1] * len(completion))
    if not isinstance(mask, list) or len(mask) != len(completion) or not all(m in (0, 1) for m in mask):
        raise refuse(where, "completion_mask", f"{len(completion)} zeros and ones", repr(mask), "one per token")
    if len(completion) and not len(prompt):
        raise refuse(where, "prompt_ids", "at least one token", "none", "put what the engine read first there (bos)")
    if lm.context is not None and len(prompt) + len(completion) > lm.context:
        raise refuse(where, "the row", f"within {lm.name}'s context of {lm.context} tokens",
                     f"{len(prompt) + len(completion)}", "leave the row out")  # fmt: skip
    temperature = given.get("temperature", 1.0)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        do = "greedy answers have no ratio: leave them out"
        raise refuse(where, "temperature", "a number > 0", repr(temperature), do)
    support = _support(given["support"], completion, where, vocab) if "support" in given else None
    identity = given.get("id", default_id)
    identity = str(identity) if type(identity) is int else text_in(identity, "id", where)
    counted = np.array(mask, bool)
    return Rollout(identity, where, prompt, completion, sampler, counted, float(temperature), support), from_text


def _prompt(given: Mapping[str, Any], where: str, lm: LM) -> tuple[Ids, bool]:
    """The prompt's ids, and whether they were made from text here."""
    there = [name for name in ("prompt_ids", "prompt", "messages") if name in given]
    if "prompt_ids" in there:
        vocab = int(lm.model.get_input_embeddings().weight.shape[0])
        return ids_in(given["prompt_ids"], "prompt_ids", where, vocab), False
    if len(there) != 1:
        got = " and ".join(there) or f"only {', '.join(map(repr, list(given)[:5])) or 'an empty object'}"
        raise refuse(where, "the prompt", "one of prompt_ids, prompt, messages", got, f"write {_EXAMPLE}")
    asked = given[there[0]]
    if isinstance(asked, str):
        ids = encode(text_in(asked, there[0], where), lm.tokenizer, special=True)
    else:
        messages = [dict(m) for m in messages_in(asked, there[0], where)]
        if not lm.has_chat_template:
            raise refuse(where, there[0], "prompt_ids for a tokenizer without a chat template", "messages",
                         "write prompt_ids")  # fmt: skip
        text, _ = render_chat(messages, lm.tokenizer, where, "change the messages, or write prompt_ids")
        ids = encode(text, lm.tokenizer, special=False)
    return np.array(ids, np.int32), True


def ids_in(value: Any, field: str, where: str, vocab: int) -> Ids:
    """A list of token ids below ``vocab``."""
    fine = isinstance(value, list) and all(type(i) is int and 0 <= i < vocab for i in value)
    if not fine:
        items = value if isinstance(value, list) else [value]
        odd = next(i for i in items if type(i) is not int or not 0 <= i < vocab or items is not value)
        raise refuse(where, field, f"a list of token ids from 0 to {vocab - 1}", repr(odd), "write the engine's ids")
    return np.array(value, np.int32)


def _logps(value: Any, completion: Ids, where: str) -> NDArray[np.float32]:
    if not isinstance(value, list) or len(value) != len(completion):
        got = f"{len(value)} of them" if isinstance(value, list) else repr(value)
        raise refuse(where, "sampler_logps", f"{len(completion)} log-probabilities, one per completion token", got,
                     "write the engine's own, null where it gave none")  # fmt: skip
    told = [_logp(one, int(y), where) for one, y in zip(value, completion, strict=True)]
    return np.minimum(np.array(told, np.float32), 0.0)


def _logp(one: Any, drawn: int, where: str) -> float:
    """A number; null is NaN; of an object by token id the drawn token's."""
    if isinstance(one, dict):
        one = one.get(str(drawn))
        one = one.get("logprob") if isinstance(one, dict) else one
    if one is None:
        return math.nan
    if isinstance(one, bool) or not isinstance(one, int | float) or one > _SLACK:
        do = "write natural logarithms, not probabilities"
        raise refuse(where, "sampler_logps", "numbers <= 0 or null", repr(one), do)
    return float(one)


def _support(value: Any, completion: Ids, where: str, vocab: int) -> tuple[Ids, ...]:
    n = len(completion)
    expected = f"the kept ids of each of the {n} tokens"
    if isinstance(value, dict):
        ids, offsets = (value.get(k) for k in ("token_ids", "offsets"))
        ordered = isinstance(offsets, list) and len(offsets) == n + 1 and all(type(o) is int for o in offsets)
        if not ordered or not isinstance(ids, list) or offsets[0] != 0 or offsets[-1] != len(ids) or any(
            a > b for a, b in zip(offsets, offsets[1:])
        ):  # fmt: skip
            got = f"offsets {repr(offsets)[:60]} of {len(ids) if isinstance(ids, list) else ids!r} ids"
            raise refuse(where, "support", expected, got, "offsets rise from 0 to the number of token_ids")
        value = [ids[a:b] for a, b in zip(offsets, offsets[1:])]
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != n:
        got = f"{len(value)} sets" if isinstance(value, list) else repr(value)
        raise refuse(where, "support", expected, got, 'write [[...], ...] or {"token_ids": [...], "offsets": [...]}')
    return tuple(ids_in(kept, "support", where, vocab) for kept in value)
