"""Run claims: each prints what it measured beside whether it holds and whether its control failed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from plumbline.core.declare import Card
from plumbline.core.errors import refuse


def seconds(text: str) -> float:
    """``60s``, ``10m``, ``1h`` or plain seconds."""
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*(s|m|h|)\s*", text)
    if match is None:
        raise refuse("claim", "--max-cost", "a time such as 60s, 10m or 1h", text, "pass --max-cost 60s")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def run(cards: Iterable[Card], *, max_seconds: float, tell: Callable[[str], Any] | None = None) -> list[dict[str, Any]]:
    """One row per claim: name, claim, holds, measured, control, seconds; or ``skipped`` with the reason."""
    rows: list[dict[str, Any]] = []
    for card in cards:
        for claim in card.claims:
            row: dict[str, Any] = {"name": card.name, "claim": claim.name, "sentence": claim.sentence}
            if claim.seconds > max_seconds or claim.cost.startswith("gpu"):
                row["skipped"] = f"costs {claim.cost}"
            else:
                began = time.perf_counter()
                evidence = claim.run()
                row |= {"holds": evidence.holds, "measured": evidence.measured, "control": evidence.control}
                row["seconds"] = round(time.perf_counter() - began, 2)
            rows.append(row)
            if tell:
                state = row.get("skipped") or ("holds" if row["holds"] and row["control"] else "DOES NOT HOLD")
                tell(f"{card.name}: {claim.sentence}\n  {state}; {row.get('measured', '')}")
    return rows
