"""Checks of instructions that a program can verify (the 25 of IFEval, less the one that needs a language detector)."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from plumbline.core.errors import refuse
from plumbline.objectives.rl.verifiers import after_thinking, tagged

Check = Callable[..., bool]

_COMPARE: dict[str, Callable[[int, int, int], bool]] = {
    "at least": lambda n, wanted, slack: n >= wanted,
    "at most": lambda n, wanted, slack: n <= wanted,
    "around": lambda n, wanted, slack: abs(n - wanted) <= slack,
}


def _amount(n: int, wanted: int, quantifier: str, slack: int) -> bool:
    if quantifier not in _COMPARE:
        raise refuse("ifeval", "quantifier", f"one of {', '.join(_COMPARE)}", quantifier, "mend the row's answer")
    return _COMPARE[quantifier](n, wanted, slack)


def _bullets(text: str) -> int:
    return sum(bool(re.match(r"\s*[*-]\s", line)) for line in text.splitlines())


def _keyword_frequency(text: str, word: str, N: int) -> bool:
    return re.findall(r"\w+", text.lower()).count(word.lower()) == N


def _paragraphs(text: str, N: int) -> bool:
    parts = [part.strip() for part in text.split("* * *")]
    return len(parts) == N and all(parts)


def _first_word(text: str, N: int, first_word: str, i: int) -> bool:
    parts = [part.strip() for part in text.strip().split("\n\n")]
    return len(parts) == N and 1 <= i <= N and parts[i - 1].lower().startswith(first_word.lower())


def _sentences(text: str, N: int, quantifier: str) -> bool:
    parts = [part for part in re.split(r"(?<![A-Z][a-z]\.)(?<=[.!?])\s+", text.strip()) if part]
    return _amount(len(parts), N, quantifier, 1)


def _postscript(text: str, postscript_marker: str) -> bool:
    _, found, rest = text.rpartition(postscript_marker)
    return bool(found and rest.strip())


def _json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


# by the names of open-instruct's data; arguments are named as there
CHECKS: dict[str, Check] = {
    "verify_keywords": lambda text, keyword_list: all(k.lower() in text.lower() for k in keyword_list),
    "verify_keyword_frequency": _keyword_frequency,
    "validate_forbidden_words": lambda text, forbidden_words: not any(
        re.search(rf"(?<!\w){re.escape(w.lower())}(?!\w)", text.lower()) for w in forbidden_words
    ),
    "verify_letter_frequency": lambda text, letter, N: text.count(letter) == N,
    "verify_paragraph_count": _paragraphs,
    "validate_word_constraint": lambda text, N, quantifier: _amount(
        len(text.split()), N, quantifier, max(round(N * 0.1), 1)
    ),
    "verify_sentence_constraint": _sentences,
    "validate_paragraphs": _first_word,
    "verify_postscript": _postscript,
    "validate_placeholders": lambda text, N: len(re.findall(r"\[[^\[\]\n]+\]", text)) >= N,
    "verify_bullet_points": lambda text, N: _bullets(text) == N,
    "validate_title": lambda text: bool(re.search(r"<<[^<>\n]+>>", text)),
    "validate_choice": lambda text, options: any(option in text for option in options),
    "validate_highlighted_sections": lambda text, N: len(re.findall(r"\*[^*\n]+\*", text)) >= N,
    "validate_sections": lambda text, N, section_splitter: len(
        re.findall(re.escape(section_splitter) + r"\s?\d+", text, re.IGNORECASE)
    ) >= N,
    "validate_json_format": _json,
    "validate_repeat_prompt": lambda text, original_prompt: text.strip().startswith(original_prompt.strip()),
    "validate_two_responses": _two_responses,
    "validate_uppercase": lambda text: bool(text.strip()) and text == text.upper(),
    "validate_lowercase": lambda text: bool(text.strip()) and text == text.lower(),
    "validate_frequency_capital_words": lambda text, N, quantifier: _amount(
        len(re.findall(r"\b[A-Z]+\b", text)), N, quantifier, max(round(N * 0.1), 1)
    ),
    "validate_end": lambda text, end_phrase: text.rstrip().endswith(end_phrase.strip()),
    "validate_quotation": lambda text: len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"',
    "validate_no_commas": lambda text: "," not in text,
}  # fmt: skip


def ifeval(prediction: str, label: Any) -> float:
    """1 where the answer, without its thinking, keeps the constraint; an empty answer keeps none.

    Args:
        label: ``{"func_name": name, argument: value, ...}`` or that as JSON; arguments that are None are left out.

    Raises:
        InputError: a label of another form, an unknown name, arguments that do not fit.
    """
    told = _label(label)
    name = told.pop("func_name", None)
    if name not in CHECKS:
        got = name if name is not None else "no func_name"
        raise refuse("ifeval", "func_name", "a check of objectives.rl.constraints.CHECKS", got, "leave this row out")
    check = CHECKS[name]
    wanted = set(inspect.signature(check).parameters) - {"text"}
    given = {k: v for k, v in told.items() if v is not None and k in wanted}
    if set(given) != wanted:
        raise refuse("ifeval", f"arguments of {name}", ", ".join(sorted(wanted)) or "none", ", ".join(sorted(given)),
                     "mend the row's answer")  # fmt: skip
    text = after_thinking(prediction)
    text = tagged(text, "answer") or text
    return float(bool(text) and check(text, **given))


def _label(label: Any) -> dict[str, Any]:
    try:
        told = json.loads(label) if isinstance(label, str) else label
    except ValueError:
        told = None
    if not isinstance(told, Mapping):
        raise refuse("ifeval", "answer", 'an object such as {"func_name": "validate_title"}', label, "mend the row")
    return dict(told)
