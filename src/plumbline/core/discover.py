"""The file listing is the registry: a folder offers whatever ``_*.py`` files it and its families hold."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from plumbline.core.declare import Card
from plumbline.core.errors import DeclarationError, InputError

HOUSE = Path(__file__).resolve().parent.parent


def methods(folder: Path = HOUSE) -> dict[str, str]:
    """Method name -> module path, for every ``_<name>.py`` below ``folder``; no file is imported."""
    found: dict[str, str] = {}
    for file in sorted(folder.rglob("_[a-z]*.py")):
        name = file.stem[1:]
        module = "plumbline." + ".".join((*file.relative_to(HOUSE).parts[:-1], file.stem))
        if name in found:
            raise DeclarationError(f"{name} is declared twice, in {found[name]} and {module}; names are unique")
        found[name] = module
    return found


def attach(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__, __dir__, __all__`` of a room: methods and sub-packages are imported when first asked for."""
    folder = Path(str(sys.modules[package].__file__)).parent
    found = methods(folder)
    families = sorted(p.parent.name for p in folder.glob("*/__init__.py"))
    names = sorted([*found, *families])

    def getattribute(name: str) -> Any:
        if name in found:
            return getattr(importlib.import_module(found[name]), name)
        if name in families:
            return importlib.import_module(f"{package}.{name}")
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise AttributeError(f"{package} has no method {name!r}{hint}")

    return getattribute, lambda: names, names


@cache
def _card(module: str, name: str) -> Card:
    card = getattr(getattr(importlib.import_module(module), name, None), "card", None)
    if not isinstance(card, Card):
        raise DeclarationError(f"{module} must declare {name} with the decorator of its kind")
    return card


def catalogue(room: str | None = None, kind: str | None = None) -> list[Card]:
    """Every card, by room and name; ``room`` may name a room or one of its families."""
    cards = [_card(module, name) for name, module in methods().items()]
    if room is not None and not any((c.room + "/").startswith(room.strip("/") + "/") for c in cards):
        known = ", ".join(sorted({c.room for c in cards}))
        raise InputError(f"no room {room!r}; rooms: {known}")
    chosen = [c for c in cards if room is None or (c.room + "/").startswith(room.strip("/") + "/")]
    return sorted((c for c in chosen if kind is None or c.kind.name == kind), key=lambda c: (c.room, c.name))


def get(name: str) -> Card:
    """The card of one method by its name; unknown names list the nearest ones."""
    found = methods()
    if name not in found:
        close = difflib.get_close_matches(name, found, n=3, cutoff=0.4)
        raise InputError(f"no method {name!r}; " + (f"nearest: {', '.join(close)}" if close else "see plumbline list"))
    return _card(found[name], name)
