"""A decoding run on the terminal: text as it comes, two versions side by side, and what they took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from plumbline.decode.command.compose import Part, Parts
from plumbline.decode.command.rows import Row
from plumbline.decode.command.run import Answer, Decoder, Done, Lines, Spent, share
from plumbline.decode.command.watch import MAIN, PEERS, printable


def title(parts: Parts) -> str:
    """The composed methods as one line."""
    return " + ".join(map(_named, parts.all)) or "plain decoding"


def _named(part: Part) -> str:
    given = {**part.sources, **part.values}
    told = ", ".join(f"{key}={getattr(value, '__name__', value)}" for key, value in given.items())
    return f"{part.card.name}({told})"


def took(spent: Spent) -> str:
    """Tokens, seconds and calls in one line."""
    line = f"{spent.tokens} tokens in {spent.seconds:.2f} s, {spent.rate:.0f} tokens/s; {_calls(spent.calls[MAIN])}"
    if spent.calls[PEERS]:
        line += f" + {spent.calls[PEERS]} of peers"
    if spent.drafted:
        line += f"; {spent.kept} of {spent.drafted} drafted tokens kept"
    return line


def _calls(n: int) -> str:
    return f"{n} model call{'' if n == 1 else 's'}"


def overrode(counts: dict[str, tuple[int, int]]) -> str:
    """What each rule replaced, in words."""
    found = {name: share(pair) for name, pair in counts.items()}
    told = [f"{name} {part:.0%} of {counts[name][1]} positions" for name, part in found.items() if part is not None]
    return "overrode the likeliest token: " + ", ".join(told) if told else ""


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token's share of the decoded text; a character cut in two goes to the token that completes it."""
    texts, before = [], ""
    for n in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[:n], skip_special_tokens=True).rstrip("\ufffd") if n < len(ids) else ""
        whole = whole if n < len(ids) else tokenizer.decode(ids, skip_special_tokens=True)
        texts.append(whole[len(before) :] if whole.startswith(before) else "")
        before = whole if whole.startswith(before) else before
    return texts


def beside(tokenizer: Any, left: Sequence[int], right: Sequence[int], *, styled: bool) -> tuple[Text, Text]:
    """Both texts with the tokens marked that differ: by colour, or in brackets where there is none."""
    columns = (Text(), Text())
    parts = (pieces(tokenizer, left), pieces(tokenizer, right))
    for what, *spans in SequenceMatcher(None, list(left), list(right), autojunk=False).get_opcodes():
        for column, words, (start, end) in zip(columns, parts, (spans[:2], spans[2:]), strict=True):
            text = printable("".join(words[start:end]))
            if not text:
                continue
            same = what == "equal"
            column.append(text if same or styled else f"[{text}]", None if same else "bold yellow")
    return columns


class Screen:
    """Prints a run for people on stdout, progress on stderr.

    Args:
        decoder: the models. quiet: texts alone. compare: two columns.
    """

    def __init__(self, decoder: Decoder, *, quiet: bool = False, compare: bool = False) -> None:
        self.console = Console(highlight=False, soft_wrap=not compare)
        self.decoder, self.quiet, self.compare = decoder, quiet, compare

    def say(self, text: str, style: str | None = None) -> None:
        self.console.print(Text(text), style=style)

    def opening(self) -> None:
        if not self.quiet:
            self.say(f"{self.decoder.lm.name}: {title(self.decoder.cast.parts)}", "bold")

    def write(self, text: str) -> None:
        self.console.file.write(text)
        self.console.file.flush()

    def batch(self, done: Done, *, streamed: bool) -> None:
        for answer in done.answers:
            if self.compare and answer.plain is not None:
                self._columns(answer, answer.plain)
            elif streamed:
                self.write("\n")
            elif self.quiet:
                self.say(printable(answer.text))
            else:
                self.heading(answer.row)
                self.say(printable(answer.text))
            self._after(answer)
        if not self.quiet:
            self.say(took(done.spent), "dim")
            if done.plain is not None:
                self.say(f"plain: {took(done.plain)}", "dim")

    def heading(self, row: Row) -> None:
        asked = " ".join(printable(row.text).split())
        self.say(f"[{row.id}] {asked if len(asked) <= 100 else asked[:99] + '…'}", "bold cyan")

    def _columns(self, answer: Answer, plain: Answer) -> None:
        if not self.quiet:
            self.heading(answer.row)
        table = Table(box=None, expand=True, pad_edge=False, header_style="bold")
        table.add_column("plain", ratio=1, overflow="fold")
        table.add_column(title(self.decoder.cast.parts), ratio=1, overflow="fold")
        styled = self.console.is_terminal and not self.console.no_color
        table.add_row(*beside(self.decoder.lm.tokenizer, plain.ids, answer.ids, styled=styled))
        self.console.print(table)

    def _after(self, answer: Answer) -> None:
        if self.quiet:
            return
        if answer.overrode:
            self.say(overrode(answer.overrode), "dim")
        if answer.chosen is not None:
            ranked = sorted(answer.chosen.confidence.items(), key=lambda pair: -pair[1])
            told = ", ".join(f"{printable(str(a))} {p:.0%}" for a, p in ranked[:4])
            self.say(f"chosen among {len(answer.texts)} samples: {told or 'no sample has an answer'}", "dim")

    def closing(self, total: dict[str, Any]) -> None:
        if self.quiet:
            return
        if total["rows"] > 1:
            calls = _calls(total["calls"][MAIN])
            peers = f" + {total['calls'][PEERS]} of peers" if total["calls"][PEERS] else ""
            speed = f"{total['tokens_per_second']:.0f} tokens/s"
            self.say(f"{total['rows']} prompts: {total['tokens']} tokens, {speed}, {calls}{peers}", "bold")
            for name, part in total["overrode"].items():
                if part is not None:
                    self.say(f"{name} overrode the likeliest token at {part:.1%} of positions", "bold")
        if "plain" in total:
            said = f"speed: {total['speed_ratio']:.2f} times plain decoding's {total['plain']['tokens_per_second']:.0f}"
            if self.decoder.cast.parts.selector:  # many answers against one: tokens a second say nothing
                said = f"time: {total['time_ratio']:.2f} times that of the one greedy answer"
            self.say(f"{said}; {total['same_text']} of {total['rows']} texts the same", "bold")


@contextmanager
def bar(screen: Screen | None, rows: int) -> Iterator[Any]:
    """Yields ``advance(n)``. The bar stays below what the screen prints, where both are one terminal."""
    shown = screen is not None and not screen.quiet
    console = screen.console if screen is not None and screen.console.is_terminal else Console(stderr=True)
    if not shown or rows < 2 or not console.is_terminal:
        yield lambda n: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as live:
        task = live.add_task("prompts", total=rows)
        yield lambda n: live.advance(task, n)


def _headings(rows: Sequence[Row], screen: Screen | None) -> Iterator[None]:
    """Says whose text is about to be streamed, where there are several."""
    for row in rows:
        if screen is not None and not screen.quiet and len(rows) > 1:
            screen.heading(row)
        yield


def run(
    decoder: Decoder, rows: Sequence[Row], *, compare: bool = False, lines: Lines | None = None,
    screen: Screen | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Decode ``rows``, show them, append them to a file; returns ``{"rows": [...], "total": {...}}``."""
    spent, plain, same = Spent(), Spent(), 0
    moved: dict[str, list[tuple[int, int]]] = {}
    told: list[dict[str, Any]] = []
    alone = len(rows) == 1 or decoder.settings.batch_size == 1
    streams = screen is not None and alone and not compare and decoder.streams
    if screen is not None:
        screen.opening()
    with bar(None if streams else screen, len(rows)) as advance:
        batches = decoder.run(rows, compare=compare, write=screen.write if screen and streams else None)
        for _, done in zip(_headings(rows, screen if streams else None), batches, strict=False):
            spent.add(done.spent)
            plain.add(done.plain or Spent())
            for answer in done.answers:
                row = answer.to_json() | {"batch": len(done.answers), "spent": done.spent.to_json()}
                told.append(row)
                same += answer.plain is not None and answer.plain.text == answer.text
                for name, pair in answer.overrode.items():
                    moved.setdefault(name, []).append(pair)
                if lines is not None:
                    lines.add(row)
            if screen is not None:
                screen.batch(done, streamed=streams)
            advance(len(done.answers))
    total: dict[str, Any] = {"methods": title(decoder.cast.parts), "rows": spent.rows, **spent.to_json()}
    total["overrode"] = {name: share((sum(a for a, _ in p), sum(b for _, b in p))) for name, p in moved.items()}
    if compare:
        ratio = round(spent.rate / plain.rate, 4) if plain.rate else 0.0
        time = round(spent.seconds / plain.seconds, 4) if plain.seconds else 0.0
        total |= {"plain": plain.to_json(), "speed_ratio": ratio, "time_ratio": time, "same_text": same}
    if screen is not None:
        screen.closing(total)
    return {"rows": told, "total": total}
