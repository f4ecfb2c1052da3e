"""Verifiers: does a model's text hold the right answer? The text is data: it is parsed here, and never evaluated.

A verifier is ``(prediction, label) -> score in [0, 1]``. Numbers are compared as exact fractions; what is neither a
number nor a list of them is compared as normalised LaTeX. There is no symbolic algebra, so nothing can hang:
``x(x+1)`` and ``x^2+x`` count as different.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

Verifier = Callable[[str, Any], float]

LONGEST = 400  # characters of an answer that is read as mathematics; longer ones are compared as they are
_NUMBER = r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)"
# a minus belongs to the number unless something that can be subtracted from stands before it
_IN_TEXT = re.compile(rf"(?:(?<![\w)\]}}%.])-)?\$?{_NUMBER}")
_SIGNED = rf"[+-]?{_NUMBER}\.?"
_FRACTION = re.compile(rf"([+-]?)(\d*)\\frac\{{({_SIGNED})\}}\{{({_SIGNED})\}}")
_SLASH = re.compile(rf"({_SIGNED})/({_NUMBER})")
_POWER_OF_TEN = re.compile(rf"({_SIGNED})(?:\\times10\^|\\cdot10\^|\*10\^|[eE])\{{?([+-]?\d{{1,2}})\}}?")
_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\{([^{}]*)\}")
_UNIT = re.compile(r"(?<=[\d}])(?:\\ )*\\(?:text|mathrm|mbox)\{[^{}]*\}(?:\^\{?\d\}?)?$")
_DROPPED = re.compile(r"\\left|\\right|\\displaystyle|\\[!,;: ]|\^\{?\\circ\}?|\\degree|\\?%|\\?\$|\\[()\[\]]|~")
_SPELLINGS = (
    (re.compile(r"\\[dtc]frac"), r"\\frac"), (re.compile(r"\\frac(\d)(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac(\d)\{"), r"\\frac{\1}{"), (re.compile(r"\\sqrt(\w)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<=\d)\s+(\d+)/(\d+)$"), r"\\frac{\1}{\2}"),  # 2 1/2 is mixed, not 21/2
    (re.compile(r"^[A-Za-z]\s*=\s*"), ""), (re.compile(r"\\(?:le|ge)q"), lambda m: m[0][:-1]),
)  # fmt: skip
_PAIRS = {"(": ")", "[": "]", "{": "}"}


def after_thinking(text: str) -> str:
    """What follows the last ``</think>``, stripped."""
    return text.rsplit("</think>", 1)[-1].strip()


def last_number(text: str) -> str | None:
    r"""The last number of a text, without thousands commas and with its own sign: "-5" of "x = -5", "3" of "7-3"."""
    found = _IN_TEXT.findall(text.replace("−", "-"))
    return re.sub(r"[$,]", "", found[-1]) if found else None


def boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` holds, braces balanced at any depth; None without one that closes."""
    at = max(text.rfind(r"\boxed{"), text.rfind(r"\fbox{"))
    if at < 0:
        return None
    start = text.index("{", at) + 1
    depth, i = 1, start
    while i < len(text):
        if text[i] == "\\":  # \{ and \} are characters, not braces
            i += 2
            continue
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[start:i].strip()
        i += 1
    return None


def stated(text: str) -> str | None:
    """What follows the last "answer is" (or "answer:") on its line, without the closing full stop."""
    found = list(re.finditer(r"answer(?: is)?:|answer is", text, re.IGNORECASE))
    if not found:
        return None
    rest = text[found[-1].end() :].strip().split("\n", 1)[0].split("I hope", 1)[0]
    return re.sub(r"\.(?:\s.*)?$", "", rest.strip(" \t:*")).strip() or None


def last_math(text: str) -> str | None:
    """What stands between the last two dollar signs."""
    parts = text.rsplit("$", 2)
    return parts[1].strip() or None if len(parts) == 3 else None


def final_answer(text: str) -> str | None:
    """The boxed answer, else the stated one, else the last mathematics, else the last number."""
    for extract in (boxed, stated, last_math, last_number):
        found = extract(text)
        if found:
            return found
    return None


def normal(text: str) -> str:
    """LaTeX in one spelling: fractions, units, sizes, spaces, dollar and percent signs."""
    told = _UNIT.sub("", text.strip().replace("−", "-").rstrip("."))
    told = _DROPPED.sub("", _WORDS.sub(r"\1", told)).strip()
    for pattern, spelled in _SPELLINGS:
        told = pattern.sub(spelled, told)
    told = re.sub(r"(?<=\d)\s+(?=\d)", "\0", told)  # 3 4 is not 34
    told = re.sub(r"\s+", "", told).replace("\0", " ")
    return told[1:-1] if re.fullmatch(r"\([A-Za-z]\)", told) else told


def exact(text: str) -> Fraction | None:
    r"""The number that a text is: an integer, decimal, a/b, ``\frac``, a mixed number or a power of ten; else None."""
    told = normal(text) if len(text) <= LONGEST else ""
    if re.fullmatch(_SIGNED, told):
        return _decimal(told)
    if found := _FRACTION.fullmatch(told):
        over, under = _decimal(found[3]), _decimal(found[4])
        value = None if under == 0 else Fraction(int(found[2] or 0)) + over / under
        return value if value is None else -value if found[1] == "-" else value
    if found := _SLASH.fullmatch(told):
        under = _decimal(found[2])
        return None if under == 0 else _decimal(found[1]) / under
    if found := _POWER_OF_TEN.fullmatch(told):
        return _decimal(found[1]) * Fraction(10) ** int(found[2])
    return None


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").rstrip("."))


def equal(a: str, b: str) -> bool:
    """Two answers: equal as numbers, as lists of equal answers, or as normalised LaTeX."""
    if max(len(a), len(b)) > LONGEST:
        return a.strip() == b.strip()
    first, second = exact(a), exact(b)
    if first is not None and second is not None:
        return first == second
    left, right = normal(a), normal(b)
    if left == right:
        return bool(left)
    several, others = _members(left), _members(right)
    if several is None or others is None or several[0] != others[0] or len(several[1]) != len(others[1]):
        return False
    if several[0] == r"\{":  # a set has no order
        rest = list(others[1])
        for one in several[1]:
            at = next((i for i, other in enumerate(rest) if equal(one, other)), None)
            if at is None:
                return False
            rest.pop(at)
        return True
    return all(equal(x, y) for x, y in zip(several[1], others[1], strict=True))


def _members(told: str) -> tuple[str, list[str]] | None:
    """Brackets and members of "(1,2]", "{3,4}" or "5,6" in normalised LaTeX; None for a single thing."""
    brackets, inner = "", told
    if told[:2] == r"\{" and told[-2:] == r"\}":
        brackets, inner = r"\{", told[2:-2]
    elif told[:1] in _PAIRS and told[-1:] in (")", "]", "}"):
        brackets, inner = told[0] + told[-1], told[1:-1]
    parts, depth = [""], 0
    for c in inner:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return (brackets, parts) if len(parts) > 1 else None


def _labels(label: Any) -> list[str]:
    return [str(one) for one in label] if isinstance(label, Sequence) and not isinstance(label, str) else [str(label)]


def gsm8k(prediction: str, label: Any) -> float:
    """1 where the last number equals the label's last number, "#### 42" being 42. Signs are kept."""
    found, wanted = last_number(prediction), last_number(str(label))
    return float(found is not None and wanted is not None and equal(found, wanted))


def mathematics(prediction: str, label: Any) -> float:
    """1 where the boxed or the stated answer is right; without either, the last mathematics or the whole text."""
    text = after_thinking(prediction)
    told = [found for extract in (boxed, stated) if (found := extract(text))]
    told = told or [found for found in (last_math(text),) if found] or [text]
    return float(any(equal(one, wanted) for one in told for wanted in _labels(label)))


def words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles, as SQuAD compares them."""
    told = "".join(c for c in text.lower() if c not in string.punctuation)
    return [word for word in told.split() if word not in ("a", "an", "the")]


def string_match(prediction: str, label: Any) -> float:
    """1 where the text (of its ``<answer>`` if there is one) has the label's words and no others."""
    found = words(tagged(prediction, "answer") or after_thinking(prediction))
    return float(any(found == words(one) for one in _labels(label)))


def f1(prediction: str, label: Any) -> float:
    """The harmonic mean of precision and recall of words, at best over the labels."""
    found = words(tagged(prediction, "answer") or after_thinking(prediction))
    return max((_f1(found, words(one)) for one in _labels(label)), default=0.0)


def _f1(found: list[str], wanted: list[str]) -> float:
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted)) if shared else 0.0


def tagged(text: str, tag: str) -> str | None:
    """What stands in the last ``<tag>...</tag>``, stripped; None without one."""
    _, opened, rest = text.rpartition(f"<{tag}>")
    inner, closed, _ = rest.partition(f"</{tag}>")
    return inner.strip() if opened and closed else None
