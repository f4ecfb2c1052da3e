"""Numbers as people read them: three significant digits, percent for shares, a dash where there is none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from plumbline.core.finding import Finding

MINUS, DASH = "\u2212", "\u2014"
_SHARE = re.compile(r"^(?P<before>.*?)\b(?:share|fraction|proportion)s?\b\s*(?P<after>.*)$", re.IGNORECASE)
_SIGNED = re.compile(r"\b(changes?|difference|delta|gap|drift|gain|increase|decrease)\b|\u0394", re.IGNORECASE)
_RATE = re.compile(r"\bflips?\b", re.IGNORECASE)


def is_share(unit: str) -> bool:
    """Whether the value is a share of something and so reads best in percent."""
    return bool(_SHARE.match(unit))


def is_signed(finding: Finding) -> bool:
    """Whether the value is a difference, which a plus sign makes plain; its name, title or unit says so."""
    judged = bool(finding.direction) or finding.interval is not None  # a norm called "change" has neither
    return judged and bool(_SIGNED.search(_called(finding)))


def is_change(finding: Finding) -> bool:
    """Whether 0 means "nothing changed", so that an interval without 0 is news: a difference, or a rate of flips."""
    return is_signed(finding) or bool(_RATE.search(_called(finding)))


def _called(finding: Finding) -> str:
    return f"{finding.title} {finding.unit} {finding.name.replace('_', ' ')}"


def number(value: float | None, *, percent: bool = False, signed: bool = False, decimals: int | None = None) -> str:
    """``0.01234`` as ``0.0123``, in percent ``1.23%``; counts in full; ``None`` and NaN as a dash."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "\u221e" if value > 0 else MINUS + "\u221e"
    size = abs(value) * (100 if percent else 1)
    sign = MINUS if value < 0 else "+" if signed and value > 0 else ""
    return sign + (_digits(size) if decimals is None else f"{size:,.{decimals}f}") + ("%" if percent else "")


def _digits(size: float) -> str:
    if size == int(size) and size < 1e15:
        return f"{int(size):,}"
    if size >= 1000:
        return f"{size:,.0f}" if size < 1e9 else f"{size:.2e}"
    if size < 1e-4:
        return f"{size:.2e}".replace("e-0", "e-").replace("-", MINUS)
    return f"{size:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def shared_decimals(values: Iterable[float], *, percent: bool) -> int | None:
    """Decimals that give the largest value three digits, so that a value and its interval line up."""
    sizes = [abs(v) * (100 if percent else 1) for v in values if math.isfinite(v)]
    top = max(sizes, default=0.0)
    if not top or top < 1e-4 or top >= 1000 or all(size == int(size) for size in sizes):
        return None
    return max(0, 2 - math.floor(math.log10(top)))


def unit_text(unit: str) -> str:
    """What stands after the number: ``share of positions`` becomes ``of positions``, the percent sign says share."""
    found = _SHARE.match(unit)
    if not found:
        return unit
    before = re.sub(r"\b(?:in|of|the)\s*$", "", found["before"].strip(), flags=re.IGNORECASE).strip()
    return ", ".join(filter(None, (found["after"].strip(), before)))


def duration(seconds: object) -> str:
    """``133.4`` as ``2 min 13 s``."""
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return str(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
