"""MkDocs hooks: one page per method and per room, written from the catalogue while the site is built."""

from __future__ import annotations

import functools
import html
import io
import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from plumbline.core.declare import Card
from plumbline.core.discover import catalogue

EVIDENCE = Path(__file__).resolve().parent.parent / "results" / "claims"
SECTIONS = ("Args", "Returns", "Raises", "Yields", "Attributes", "Note", "Notes", "Example", "Examples", "Source")
# what matplotlib's mathtext lacks, in terms of what it has
PLAINER = {
    r"\\[bB]igg?[lrm]?(?![a-zA-Z])": "",
    r"\\[lr]vert\b": "|",
    r"\\[lr]Vert\b": r"\\|",
    r"\\[td]frac\b": r"\\frac",
    r"\\text\b": r"\\mathrm",
    r"\\operatorname\b": r"\\mathrm",
    r"\\le\b": r"\\leq",
    r"\\ge\b": r"\\geq",
    r"\\mathbf\{1\}|\\mathbb\{1\}": r"\\mathbf{1}",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the generated pages to the navigation, by room."""
    rooms = [{room: [page(card) for card in cards]} for room, cards in by_room()]
    assert config.nav is not None
    config.nav.append({"Methods": ["methods/index.md", *rooms]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = {page(card): method_page(card) for _, cards in by_room() for card in cards}
    for path, text in {"methods/index.md": index_page(), **pages}.items():
        files.append(File.generated(config, path, content=text))
    return files


def page(card: Card) -> str:
    return f"methods/{card.name}.md"


@functools.cache
def by_room() -> list[tuple[str, list[Card]]]:
    return [(room, list(cards)) for room, cards in groupby(catalogue(), key=lambda card: card.room)]


def cell(text: object) -> str:
    """Text for one cell of a table: nothing in it can end the cell, start HTML or emphasis."""
    return re.sub(r"([|*_`\[\]\\])", r"\\\1", html.escape(str(text), quote=False)).replace("\n", " ")


def prose(text: str) -> str:
    """Text where HTML is shown, never read; ``code`` keeps its backticks."""
    parts = re.split(r"(``?[^`]+``?)", text)
    return "".join(p if i % 2 else html.escape(p, quote=False).replace("*", r"\*") for i, p in enumerate(parts))


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def index_page() -> str:
    rooms = by_room()
    count = sum(len(cards) for _, cards in rooms)
    lines = [
        "# Methods",
        "",
        f"{count} methods in {len(rooms)} rooms, each one file with its paper and its evidence.",
        "",
    ]
    for room, cards in rooms:
        lines += [f"## {room}", ""]
        rows = [(f"[`{c.name}`]({c.name}.md)", c.kind.name.replace("_", " "), cell(c.says), cited(c)) for c in cards]
        lines += table(("method", "kind", "what it does", "source"), rows)
    return "\n".join(lines)


def cited(card: Card) -> str:
    if card.paper is None:
        return "standard"
    who = f"{card.paper.authors}, {card.paper.year}"
    return f"[{cell(who)}](https://arxiv.org/abs/{card.paper.arxiv})" if card.paper.arxiv else cell(who)


def method_page(card: Card) -> str:
    lines = [f"# {card.name}", "", prose(card.says), ""]
    paper = card.paper
    if paper is not None:
        link = f", [arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
        lines += [f"**Paper**: {prose(paper.authors)} ({paper.year}), {prose(paper.title)}{link}.", ""]
    lines += [f"**Kind**: {card.kind.name.replace('_', ' ')}, called as `{card.kind.call}`.", ""]
    package = card.module.rsplit(".", 1)[0]
    lines += ["```python", f"from {package} import {card.name}", "```", "", "## Definition", "", *docstring(card.doc)]
    if card.params:
        rows = [(f"`{p.name}`", cell(p.describe()), default(p.default)) for p in card.params.values()]
        lines += ["", "## Hyper-parameters", "", *table(("name", "takes", "default"), rows)]
    for title, said in (
        ("What it reads", [f"`{need}`" for need in card.needs]),
        ("Numbers it can report", [f"`{name}`" for name in card.gives]),
        ("Departures from the paper" if paper else "Notes", [prose(text) for text in card.differs]),
    ):
        if said:
            lines += ["", f"## {title}", "", *(f"- {text}" for text in said), ""]
    if card.claims:
        lines += ["", "## Evidence", "", f"Run it with `plumbline claim {card.name}`.", ""]
        rows = [
            (prose(c.sentence).replace("|", r"\|"), f"`{c.cost}`", measured(card.name, c.name)) for c in card.claims
        ]
        lines += table(("claim", "cost", "last recorded"), rows)
    return "\n".join(lines)


def default(value: Any) -> str:
    if value is type(value) or getattr(value, "__name__", "") == "_empty":
        return "required"
    return f"`{getattr(value, '__name__', None) or repr(value)}`"


def measured(method: str, claim: str) -> str:
    """The committed numbers of a claim, if its evidence file is there."""
    file = EVIDENCE / f"{method}.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    results = told if isinstance(told, list) else told.get("claims", told.get("results", [told]))
    for found in results:
        if isinstance(found, dict) and found.get("claim", found.get("name")) in (claim, method):
            numbers = ", ".join(
                f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in found["measured"].items()
            )
            return cell(("holds: " if found["holds"] and found["control"] else "does not hold: ") + numbers)
    return ""


def docstring(doc: str) -> list[str]:
    """Google-style sections and ``.. math::`` blocks as Markdown."""
    lines: list[str] = []
    section = ""
    blocks = iter(re.split(r"\n(?=\.\. math::)|\n(?=\w+:\n)|\n(?=\S)", doc))
    for block in blocks:
        if block.startswith(".. math::"):
            equation, rest = split_math(block)
            lines += ["", math(equation), "", *([prose(rest), ""] if rest else [])]
            continue
        head, _, body = block.partition("\n")
        if head.rstrip(":") in SECTIONS and head.endswith(":"):
            section = head.rstrip(":")
            title = {"Args": "Arguments"}.get(section, section)
            lines += ["", f"**{title}**", "", *items(body, entries=section in ("Args", "Raises", "Attributes")), ""]
        else:
            lines += [prose(re.sub(r":(?:func|class|meth|mod):`~?([^`]+)`", r"`\1`", block))]
    return lines


def split_math(block: str) -> tuple[str, str]:
    """The equation of a math directive, and any unindented text after it."""
    first, *rest = block.removeprefix(".. math::").split("\n")
    inside = [first.strip()]
    while rest and (not rest[0].strip() or rest[0].startswith(" ")):
        inside.append(rest.pop(0).strip())
    return "\n".join(inside).strip(), "\n".join(rest).strip()


def items(body: str, *, entries: bool) -> list[str]:
    """Indented ``name: meaning`` entries as a list; other sections as prose."""
    lines = [line[4:] if line.startswith("    ") else line for line in body.split("\n")]
    if not entries:
        return [prose(line) for line in lines]
    found: list[str] = []
    for line in lines:
        match = re.match(r"(\*{0,2}[\w][\w, .*]*?)( \([^)]*\))?: (.*)", line)
        if match:
            found.append(f"- `{match[1]}`{prose(match[2] or '')}: {prose(match[3])}")
        elif line.strip():
            found.append(("  " if found else "") + prose(line.strip()))
    return found


def math(equation: str) -> str:
    """Inline SVG per line, so that pages need no network; LaTeX as it is where the small renderer cannot read it."""
    rows = [row.strip(" &\n") for row in re.split(r"\\\\(?:\[\w+\])?|\n\s*\n", equation) if row.strip()]
    try:
        return "".join(f'<p class="math" style="overflow-x:auto">{drawn(" ".join(row.split()))}</p>' for row in rows)
    except ValueError:
        return f"```latex\n{equation}\n```"


@functools.cache
def drawn(equation: str) -> str:
    import matplotlib as mpl
    from matplotlib.mathtext import math_to_image

    for pattern, plainer in PLAINER.items():
        equation = re.sub(pattern, plainer, equation)
    svg = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "plumbline", "svg.fonttype": "path", "mathtext.fontset": "cm"}):
        math_to_image(f"${equation.replace('&', '')}$", svg, format="svg", dpi=72)
    picture = re.sub(
        r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg.getvalue(), flags=re.DOTALL
    )
    picture = picture[picture.index("<svg") :]
    picture = re.sub(r'<g id="patch_1">.*?</g>', "", picture, flags=re.DOTALL)
    width, height = (1.5 * float(n) for n in re.findall(r'(?:width|height)="([\d.]+)pt"', picture)[:2])
    picture = re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt"', f'width="{width:.0f}" height="{height:.0f}"', picture, count=1
    )
    label = html.escape(equation, quote=True)
    picture = picture.replace("<svg ", f'<svg role="img" aria-label="{label}" style="fill: currentColor" ', 1)
    return " ".join(picture.split())
