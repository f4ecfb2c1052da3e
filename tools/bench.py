"""Run every script under benchmarks/, print their figures, and refresh the table in docs/performance.md.

python tools/bench.py [NAME...]      (make bench, make bench ARGS=diff)

A script answers ``--json`` with one last line ``{"name", "figures": {...}, "targets": {...}, "holds": bool}``, and a
``"table"`` of its own where it has one, which goes between the markers of its name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
MARKS = "<!-- {}:begin -->", "<!-- {}:end -->"


def run(script: Path) -> list[dict[str, Any]]:
    """Every JSON result that the script printed; a crash is a result that does not hold."""
    print(f"benchmarks/{script.name}", flush=True)
    done = subprocess.run([sys.executable, str(script), "--json"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    found = []
    for line in done.stdout.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and "figures" in told:
            found.append(told)
            print("  " + line, flush=True)
    if not found:
        print(f"  no result (exit code {done.returncode})", flush=True)
        found = [{"name": script.stem, "figures": {}, "targets": {}, "holds": False}]
    return found


def rows(results: list[dict[str, Any]]) -> list[str]:
    """One line per figure, with its target where it has one."""
    lines = ["| benchmark | figure | measured | target | holds |", "| --- | --- | --- | --- | --- |"]
    for told in results:
        figures = told["figures"] or {"no result": None}
        for name, value in figures.items():
            target = told["targets"].get(name, "")
            shown = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
            lines.append(f"| {told['name']} | {name} | {shown} | {target} | {'yes' if told['holds'] else '**no**'} |")
    return lines


def table(found: list[dict[str, Any]]) -> list[str]:
    """A benchmark's own table (``"table"``: a list of rows), as Markdown."""
    names = list(found[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    shown = [[f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in found]
    return [*lines, *("| " + " | ".join(row) + " |" for row in shown)]


def refresh(page: str, name: str, lines: list[str]) -> str:
    """The page with the text between the markers of ``name`` replaced."""
    begin, end = (mark.format(name) for mark in MARKS)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"{PAGE.relative_to(ROOT)} must hold {begin} and {end} once each")
    before, rest = page.split(begin)
    return before + "\n".join([begin, *lines, end]) + rest.split(end)[1]


def main(names: list[str]) -> int:
    scripts = [s for s in sorted((ROOT / "benchmarks").glob("[a-z]*.py")) if not names or s.stem in names]
    if not scripts:
        print(f"bench: no such script; there are {', '.join(s.stem for s in (ROOT / 'benchmarks').glob('[a-z]*.py'))}")
        return 2
    results = [told for script in scripts for told in run(script)]
    if not names:  # a table of some of the figures would pass for all of them
        page = refresh(PAGE.read_text(encoding="utf-8"), "bench", rows(results))
        for told in results:
            if told.get("table"):
                page = refresh(page, told["name"], table(told["table"]))
        with tempfile.NamedTemporaryFile("w", dir=PAGE.parent, delete=False, encoding="utf-8") as out:
            out.write(page)
        os.replace(out.name, PAGE)
    return 0 if all(told["holds"] for told in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
