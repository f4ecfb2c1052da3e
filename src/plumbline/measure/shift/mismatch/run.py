"""What a command runs: load the model, re-score the file, and say what was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plumbline.core.finding import Finding
from plumbline.kernels.files import write_text
from plumbline.measure.shift._rollout_mismatch import rollout_mismatch
from plumbline.models.lm import LM
from plumbline.models.load import load


def mismatch(
    model: LM | str | Path, path: str | Path, *, batch_tokens: int = 8192, device: str | None = None,
    dtype: str | None = None, worst: int = 20, upper: float = 3.0, limit: int | None = None, seed: int = 0,
    progress: Callable[[int], None] | None = None, **how: Any,
) -> list[Finding]:  # fmt: skip
    """Findings of a file of rollouts against the trainer's model.

    Args:
        model: an ``LM``, or what ``models.load`` takes; ``device``, ``dtype`` and ``how`` go there.
        path: JSONL; "-" is standard input. progress: called with the number of rows that were just scored.
        batch_tokens, worst, upper, limit, seed: as ``rollout_mismatch``.

    Raises:
        PlumblineError: in one line, of the model or of a line of the file.
    """
    lm = load(model, device=device, dtype=dtype, **how)
    return [rollout_mismatch(lm, path, batch_tokens=batch_tokens, worst=worst, upper=upper, limit=limit, seed=seed,
                             progress=progress)]  # fmt: skip


def write_json(findings: Sequence[Finding], path: str | Path) -> None:
    """The findings for machines, whole or not at all."""
    told = json.dumps({"findings": [f.to_json() for f in findings]}, indent=1, ensure_ascii=False)
    write_text(path, told + "\n")


def show(findings: Sequence[Finding], *, console: Any = None, tokens: int = 5) -> None:
    """The findings for people: the reading, a table of numbers, warnings, the worst tokens.

    Args:
        console: rich's; standard output when None. tokens: how many of the worst are shown.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    screen = Console() if console is None else console
    for finding in findings:
        screen.print(Text(finding.sentence, style="bold"))
        screen.print(Padding(_numbers(finding), (1, 0)))
        for warning in dict.fromkeys(w for part in finding.flat().values() for w in part.warnings):
            screen.print(Text(f"warning: {warning}", style="yellow"))
        if finding.table and tokens:
            screen.print(Padding(_worst(finding.table[:tokens]), (1, 0, 0, 0)))


def _numbers(finding: Finding) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, how in (("", "left"), ("value", "right"), ("95% interval", "left"), ("", "left")):
        table.add_column(name, justify=how)
    for part in finding.flat().values():
        ends = "" if part.interval is None else f"{part.interval[0]:.4g} to {part.interval[1]:.4g}"
        shown = "—" if part.value is None else f"{part.value:.4g}"
        table.add_row(part.title, shown, ends, part.unit, style="bold" if part is finding else "")
    return table


def _worst(rows: Sequence[Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="worst tokens", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("row", "position", "engine", "trainer", "token"):
        table.add_column(name, overflow="fold")
    for row in rows:
        numbers = (str(row["position"]), f"{row['engine']:.3g}", f"{row['trainer']:.3g}")
        table.add_row(Text(row["id"]), *numbers, Text("".join(c if c.isprintable() else "�" for c in row["token"])))
    return table
