"""What every method owes: a name, a documented equation with shapes, guarded bounds, a claim."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Card
from plumbline.core.errors import InputError


class CheckFailed(AssertionError):
    """A property that every method of the kind must have was seen not to hold."""


def expect(holds: bool, card: Card, what: str) -> None:
    if not holds:
        raise CheckFailed(f"{card.kind.name} {card.name}: {what}")


def named(card: Card) -> None:
    """Lower case, and the same as the file's."""
    expect(card.name == card.name.lower(), card, "the name must be lower case")
    inside = card.module.startswith("plumbline.")
    expect(not inside or card.module.endswith(f"._{card.name}"), card, "the file must carry the method's name")


def documented(card: Card) -> None:
    """The docstring holds an equation or formula, and the shape of what goes in or comes out."""
    expect(bool(re.search(r"math::|:math:|=|``", card.doc)), card, "the docstring must hold the equation")
    shaped = re.search(r"\[[A-Za-z0-9 ,.]+\]|table|scalar|Finding", card.doc)
    expect(bool(shaped), card, "the docstring must state shapes or the tables it reads")


def cited(card: Card) -> None:
    """A paper with a plausible year, or a stated departure in its place."""
    if card.paper is not None:
        expect(bool(card.paper.title and card.paper.authors), card, "the paper needs a title and authors")
        expect(1900 < card.paper.year < 2100, card, f"the paper's year {card.paper.year} cannot be")


def claimed(card: Card) -> None:
    """At least one runnable claim."""
    expect(bool(card.claims), card, "the file must hold a claim with a control")


def bounded(card: Card) -> None:
    """A value just outside each bound is refused by name before anything else happens."""
    for param in card.params.values():
        for bad in outside(param.bound) if param.bound else []:
            try:
                card.fn(*[None] * len(card.roles), **{param.name: bad})
            except InputError as error:
                told = str(error)
                expect(card.name in told and param.name in told, card, f"the refusal must name {param.name}: {told}")
            except Exception as error:
                raise CheckFailed(f"{card.name}: {param.name}={bad} raised {type(error).__name__}: {error}") from error
            else:
                raise CheckFailed(f"{card.name}: {param.name}={bad} was accepted, bound {param.bound}")


def outside(bound: Bound) -> list[float]:
    """Values that the bound must refuse, NaN among them."""
    low = [bound.gt] if bound.gt is not None else [bound.ge - 1] if bound.ge is not None else []
    high = [bound.lt] if bound.lt is not None else [bound.le + 1] if bound.le is not None else []
    return [*low, *high, math.nan]


def same(card: Card, got: Tensor, wanted: Tensor, what: str, tolerance: float = 1e-5) -> None:
    """Two results must agree in shape and value; NaN equals NaN and infinities themselves."""
    expect(got.shape == wanted.shape, card, f"{what}: shape {tuple(got.shape)} instead of {tuple(wanted.shape)}")
    got, wanted = got.detach(), wanted.detach()
    close = torch.allclose(got.double(), wanted.double(), rtol=tolerance, atol=tolerance, equal_nan=True)
    expect(close, card, f"{what}: differs by up to {float((got.double() - wanted.double()).abs().max()):.3g}")


def unchanged(card: Card, call: Callable[[], Any], *inputs: Tensor) -> Any:
    """Run ``call`` and require that it left its inputs as they were."""
    before = [x.detach().clone() for x in inputs]
    result = call()
    for x, kept in zip(inputs, before, strict=True):
        expect(torch.equal(x.detach(), kept), card, "it changed an input in place")
    return result


COMMON = (named, documented, cited, claimed, bounded)
