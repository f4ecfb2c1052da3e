"""Write the ``__init__.pyi`` of every room, so that editors and type checkers see what is attached lazily.

``python -m plumbline.checks.stubs`` writes them; ``--check`` exits 1 and names those that are stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

from plumbline.core.discover import HOUSE, methods


def stubs() -> dict[Path, str]:
    """Stub file -> its text, for each folder whose ``__init__.py`` attaches its methods."""
    texts = {}
    for init in sorted(HOUSE.rglob("__init__.py")):
        if "attach(__name__)" not in init.read_text():
            continue
        found = sorted(methods(init.parent).items())
        lines = [_line(module, name) for name, module in found]
        package = "plumbline." + ".".join(init.parent.relative_to(HOUSE).parts)
        families = sorted(p.parent.name for p in init.parent.glob("*/__init__.py"))
        lines += [f"from {package} import {family} as {family}" for family in families]
        texts[init.with_suffix(".pyi")] = "\n".join(lines) + "\n"
    return texts


def _line(module: str, name: str) -> str:
    """One import, wrapped as the formatter wraps it."""
    line = f"from {module} import {name} as {name}"
    return line if len(line) <= 120 else f"from {module} import (\n    {name} as {name},\n)"


def main(arguments: list[str]) -> int:
    stale = [file for file, text in stubs().items() if not file.exists() or file.read_text() != text]
    if "--check" in arguments:
        for file in stale:
            print(f"stale: {file.relative_to(HOUSE)}; run make stubs")
        return bool(stale)
    for file in stale:
        file.write_text(stubs()[file])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
