"""Errors a user can cause and mend: one line that names method, argument, expectation, value and remedy."""

from __future__ import annotations

from typing import Any


class PlumblineError(Exception):
    """Base of every error that a user can mend. The CLI prints it in one line and exits with code 2."""


class InputError(PlumblineError, ValueError):
    """An argument, a file or a tensor is not what the method can take."""


class LoadError(PlumblineError):
    """A model, tokenizer or weight file cannot be loaded as asked."""


class DeclarationError(PlumblineError, TypeError):
    """A method file declares something that the library cannot interpret; raised at import."""


def refuse(
    where: str, argument: str, expected: str, got: Any, do: str, *, error: type[PlumblineError] = InputError
) -> PlumblineError:
    """The one sentence every refusal has: ``raise refuse("npo", "beta", "a number > 0", -1, "pass beta=0.1")``."""
    shown = got if isinstance(got, str) else repr(got)
    shown = " ".join(shown.split())
    if len(shown) > 160:
        shown = shown[:157] + "..."
    return error(f"{where}: {argument} must be {expected}, got {shown}; {do}")
