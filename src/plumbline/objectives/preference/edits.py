"""Small errors put into a right step of a solution: what to ask a model for, rules that need none, and filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Row = Mapping[str, Any]
Generate = Callable[[str, int], Sequence[str]]  # a prompt and a number of samples -> completions
Edit = Callable[[str, Row, str, "torch.Generator | None"], "str | None"]  # text, its problem, what precedes it, draws
Rule = Callable[[str, "torch.Generator | None"], "str | None"]

NUMBER = re.compile(r"\d+(?:\.\d+)?")
OPERATOR = re.compile(r"(?<=[\d)])(\s*)([-+*/×÷])(\s*)(?=[\d(])")
_HEADER = re.compile(r"^Step \d+:", re.MULTILINE)
_ADMISSIONS = re.compile(
    r"\b(mistake(n|nly|s)?|misunderst\w+|mislead\w*|misinterpret\w*|incorrect\w*|wrong\w*|error(s|neous)?|"
    r"not correct|the correct|let'?s (correct|reconsider)|reconsider\w*|python)\b", re.IGNORECASE)  # fmt: skip
_OPPOSITES = (
    ("more", "fewer"), ("greater", "smaller"), ("increase", "decrease"), ("increases", "decreases"),
    ("before", "after"), ("first", "last"), ("all", "some"), ("each", "every second"), ("even", "odd"),
    ("sum", "difference"), ("product", "quotient"), ("twice", "half"), ("positive", "negative"),
    ("maximum", "minimum"), ("left", "right"), ("inside", "outside"), ("adds", "removes"), ("buys", "sells"),
    ("and", "or"), ("is", "is not"),
)  # fmt: skip


def draw(options: Sequence[Any], generator: torch.Generator | None) -> Any:
    """One of the options, uniformly."""
    return options[int(torch.randint(len(options), (1,), generator=generator))]


def step_spans(solution: str) -> list[tuple[int, int]]:
    """Where the steps of a solution lie, each from behind its header ``Step 3:`` at the start of a line."""
    heads = [m.span() for m in _HEADER.finditer(solution)]
    ends = [start for start, _ in heads[1:]] + [len(solution)]
    return [(start, end) for (_, start), end in zip(heads, ends, strict=False)]


def tail(step: str, sentences: int = 4) -> tuple[int, int]:
    """The span of the last few sentences of a step, without the white space around them."""
    starts = [m.end() for m in re.finditer(r"\A\s*|\n+\s*|\.\s+", step) if step[m.end() :].strip()]
    return (starts[-sentences:] or [0])[0], len(step.rstrip())


def admits(text: str, question: str = "") -> bool:
    """Whether a text speaks of a mistake, or corrects itself; never where the question itself is about such words."""
    return not re.search(r"wrong|correct", question) and _ADMISSIONS.search(text) is not None


def without_boxes(text: str) -> str:
    r"""``\boxed{...}`` as its content, with the ``$`` or ``\( \)`` about it off: a rejected step holds no answer."""
    while (start := text.find("\\boxed{")) >= 0:
        depth, end = 1, start + len("\\boxed{")
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        inner = text[start + len("\\boxed{") : end - (depth == 0)]
        before, after = text[:start], text[end:]
        for left, right in (("\\(", "\\)"), ("\\[", "\\]"), ("$", "$")):
            if before.rstrip().endswith(left) and after.lstrip().startswith(right):
                before, after = before.rstrip()[: -len(left)], after.lstrip()[len(right) :]
                break
        text = before + inner + after
    return text


def _changed(text: str, match: re.Match[str], new: str) -> str:
    return text[: match.start()] + new + text[match.end() :]


def change_value(text: str, generator: torch.Generator | None) -> str | None:
    """One number is off by 1 to 9."""
    found = list(NUMBER.finditer(text))
    if not found:
        return None
    match = draw(found, generator)
    whole, _, rest = match.group().partition(".")
    by = draw([d for d in range(-9, 10) if d and int(whole) + d >= 0], generator)
    return _changed(text, match, str(int(whole) + by) + (f".{rest}" if rest else ""))


def change_related_values(text: str, generator: torch.Generator | None) -> str | None:
    """A number that is written up to three times is off by the same amount everywhere; else one number."""
    values = [m.group() for m in NUMBER.finditer(text)]
    repeated = sorted({v for v in values if 1 < values.count(v) <= 3 and "." not in v})
    if not repeated:
        return change_value(text, generator)
    old = draw(repeated, generator)
    new = str(int(old) + draw(range(1, 10), generator))
    return re.sub(rf"(?<![\d.]){old}(?!\d|\.\d)", new, text)


def substitute(text: str, generator: torch.Generator | None) -> str | None:
    """One number in the place of another."""
    found = list(NUMBER.finditer(text))
    pairs = [(m, other.group()) for m in found for other in found if other.group() != m.group()]
    return _changed(text, *draw(pairs, generator)) if pairs else None


def delete_term(text: str, generator: torch.Generator | None) -> str | None:
    """A number goes, with the operator before it."""
    found = list(re.finditer(r"(?<=[\d)])\s*[-+*/×÷]\s*\d+(?:\.\d+)?", text))
    return _changed(text, draw(found, generator), "") if found else None


def change_symbol(text: str, generator: torch.Generator | None) -> str | None:
    """Another operator."""
    found = list(OPERATOR.finditer(text))
    if not found:
        return None
    match = draw(found, generator)
    new = draw([sign for sign in "+-*/" if sign != match.group(2)], generator)
    return _changed(text, match, match.group(1) + new + match.group(3))


def swap_terms(text: str, generator: torch.Generator | None) -> str | None:
    """``b - a`` for ``a - b``, or of a quotient."""
    found = [m for m in re.finditer(r"(\d+)(\s*[-/÷]\s*)(\d+)", text) if m.group(1) != m.group(3)]
    if not found:
        return None
    match = draw(found, generator)
    return _changed(text, match, match.group(3) + match.group(2) + match.group(1))


def change_words(text: str, generator: torch.Generator | None) -> str | None:
    """One describing word becomes its opposite."""
    both = {a: b for pair in _OPPOSITES for a, b in (pair, pair[::-1])}
    found = list(re.finditer(r"\b(" + "|".join(sorted(both, key=len, reverse=True)) + r")\b", text))
    if not found:
        return None
    match = draw(found, generator)
    return _changed(text, match, both[match.group()])


REQUESTS: dict[Rule, str] = {
    change_related_values: "alter one number, or several that belong together, so that the calculation comes out wrong",
    change_value: "alter its number so that the calculation comes out wrong",
    substitute: "put a wrong value or symbol in the place of another",
    delete_term: "leave out one term, so that the calculation comes out wrong",
    change_symbol: "exchange one sign of operation for another, so that the calculation comes out wrong",
    swap_terms: "exchange two terms, so that the calculation comes out wrong",
    change_words: "alter the describing words so that they show a misreading of the question",
}


def errors_for(text: str) -> list[Rule]:
    """The kinds of error that a text has room for, as the paper chooses them."""
    numbers = len(NUMBER.findall(text))
    found: list[Rule] = [change_related_values] if numbers > 1 else [change_value] if numbers else []
    if "=" in text:
        found += [substitute, delete_term, change_symbol, swap_terms]
    return found or [change_words]


def rule_edit(text: str, row: Row, before: str, generator: torch.Generator | None = None) -> str | None:
    """An :data:`Edit` that needs no model: one of the errors that fit, in one to three words; None where none does."""
    rules = errors_for(text)
    for i in torch.randperm(len(rules), generator=generator).tolist():
        edited = rules[i](text, generator)
        if edited is not None and edited != text:
            return edited
    return None


def self_edit(generate: Generate) -> Edit:
    """The paper's :data:`Edit`: the policy itself is asked for the error. ``generate`` applies the chat template."""

    def edit(text: str, row: Row, before: str, generator: torch.Generator | None) -> str | None:
        request = REQUESTS[draw(errors_for(text), generator)]
        asked = (
            f"Question:\n```\n{row['prompt']}\n```\n\nSolution so far:\n```\n{before}\n```\n\nNext part:\n```\n{text}\n"
            f"```\n\nRewrite the next part with one small error: {request}. Keep everything else, and do not mention "
            "the error. Answer with the rewritten part between ``` marks."
        )
        fenced = re.search(r"```(?:\w*\n)?(.+?)\n?```", generate(asked, 1)[0], re.DOTALL)
        return fenced.group(1).strip() if fenced else None

    return edit
