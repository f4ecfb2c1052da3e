"""A bar on stderr with the rate and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from plumbline.diff.run import Todo


@contextmanager
def progress_bar(shown: bool, entries: int, work: Todo) -> Iterator[Callable[[int], None]]:
    """Yields ``advance(number)``, which counts a unit's entries; those of units that are not in ``work`` are done."""
    if not shown:
        yield lambda number: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    sizes = {number: len(found) for number, _, found in work}
    rate = TextColumn("[cyan]{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as live:
        task = live.add_task("inputs", total=entries, completed=entries - sum(sizes.values()), rate="")
        began, fresh = time.monotonic(), 0

        def advance(number: int) -> None:
            nonlocal fresh
            fresh += sizes[number]
            live.update(task, advance=sizes[number], rate=f"{fresh / (time.monotonic() - began):.1f}/s")

        yield advance
