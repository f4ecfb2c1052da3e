"""What people read beside a number: prompts, outputs, contexts, token heat maps, and refusals to measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.core.finding import Finding
from plumbline.kernels.records import Records

if TYPE_CHECKING:
    import pandas as pd


def clip(text: Any, length: int = 240) -> str:
    """One line of at most ``length`` characters; a None is empty."""
    told = "" if text is None else " ".join(str(text).split())
    return told if len(told) <= length else told[: length - 1].rstrip() + "…"


def share(value: float | None) -> str:
    """A share as people write it: 0.0123 -> "1.2%"; more digits where it is small."""
    if value is None:
        return "undefined"
    percent = 100 * value
    return f"{percent:.1f}%" if abs(percent) >= 1 else f"{percent:.2g}%"


def range_of(finding: Finding, form: str = "{:.3g}") -> str:
    """The interval in words, for a sentence: " (0.1 to 0.3)", or nothing where there is none."""
    if finding.interval is None:
        return ""
    low, high = finding.interval
    return f" ({form.format(low)} to {form.format(high)})"


def undefined(name: str, why: str, *, have: int = 0, need: int = 0, what: str = "items", **more: Any) -> Finding:
    """The finding of a measurement that cannot be made, with what it needs in its sentence."""
    need_text = f" It needs at least {need} {what}; there are {have}." if need else ""
    return Finding(name=name, value=None, sentence=f"Not measured: {why}.{need_text}", n_items=have, **more)


def items_of(comparison: Records) -> pd.DataFrame:
    """The items table by item number: id, prompt, tags, answer. Empty strings where the run kept no items."""
    import pandas as pd

    if not comparison.has("items"):
        return pd.DataFrame(columns=["id", "prompt", "tags", "answer"]).rename_axis("item")
    return comparison.table("items", columns=["item", "id", "prompt", "tags", "answer"]).set_index("item")


def tags_of(items: pd.DataFrame) -> dict[str, np.ndarray]:
    """Item numbers [m] by tag, in order of the tags' names."""
    found: dict[str, list[int]] = {}
    for item, tags in items["tags"].items():
        for tag in () if tags is None else tags:
            found.setdefault(str(tag), []).append(int(item))
    return {tag: np.asarray(found[tag], np.int64) for tag in sorted(found)}


def rows_of(comparison: Records, table: str, items: Sequence[int], columns: Sequence[str]) -> pd.DataFrame:
    """The rows of a few items, without reading the rest of the table into memory."""
    import pandas as pd
    import pyarrow.parquet as pq

    if not len(items):
        return pd.DataFrame(columns=list(columns))
    keep = [("item", "in", [int(i) for i in items])]
    return pq.read_table(comparison.path(table), columns=list(columns), filters=keep).to_pandas()


def outputs_of(comparison: Records, items: Sequence[int]) -> dict[tuple[int, str], str]:
    """Texts of a few items by (item, arm)."""
    if not comparison.has("outputs") or not len(items):
        return {}
    frame = rows_of(comparison, "outputs", items, ["item", "arm", "text"])
    return {(int(r.item), str(r.arm)): r.text for r in frame.itertuples()}


def context(comparison: Records, ids: Sequence[int], at: int, before: int = 8, after: int = 3) -> str:
    """The token at ``at`` in brackets with its neighbours: "…the capital of [Par]is…"."""
    left = "".join(comparison.token(i) for i in ids[max(0, at - before) : at])
    right = "".join(comparison.token(i) for i in ids[at + 1 : at + 1 + after])
    return f"{left}⟦{comparison.token(ids[at])}⟧{right}".replace("\n", "⏎")


def candidates(comparison: Records, ids: Sequence[int], logps: Sequence[float], top: int = 3) -> str:
    """The likeliest tokens with their probabilities: "Paris 0.91, Lyon 0.04"."""
    best = sorted(zip(ids, logps, strict=True), key=lambda pair: -pair[1])[:top]
    return ", ".join(f"{comparison.token(int(i))!r} {np.exp(p):.2f}" for i, p in best)


HEAT = [
    "item", "source", "pos", "token_id", "rank_a", "kl_ba", "top_ids_a", "top_logps_a", "top_ids_b", "top_logps_b",
]  # fmt: skip


def heat_maps(
    comparison: Records, chosen: dict[int, str], label: Any, sources: Sequence[str], limit: int = 300
) -> tuple[dict[str, Any], ...]:
    """Token heat maps of a few items; score 1 - rank^(-1/2) and label by the base rank, both candidates.

    Args:
        comparison: the records.
        chosen: title by item.
        label: rank -> word.
        sources: which rows of ``tokens`` to show.
        limit: tokens shown per item.
    """
    frame = rows_of(comparison, "tokens", list(chosen), HEAT)
    frame = frame[frame["source"].astype(str).isin(sources)]
    maps = []
    for item, title in chosen.items():
        rows = frame[frame["item"] == item].sort_values("pos", kind="stable").head(limit)
        tokens = [_heat(comparison, row, label) for row in rows.itertuples()]
        if tokens:
            maps.append({"title": title, "tokens": tokens})
    return tuple(maps)


def _heat(comparison: Records, row: Any, label: Any) -> dict[str, Any]:
    base = candidates(comparison, row.top_ids_a, row.top_logps_a)
    tuned = candidates(comparison, row.top_ids_b, row.top_logps_b)
    return {
        "text": comparison.token(row.token_id),
        "score": float(1 - row.rank_a**-0.5),
        "label": label(int(row.rank_a)),
        "note": f"base rank {row.rank_a}, KL {row.kl_ba:.3f} | base: {base} | tuned: {tuned}",
    }
