"""Declaring a method: one decorator per kind, one Card that five consumers read, one decorator for claims."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, Union

from plumbline.core.errors import DeclarationError, InputError, refuse
from plumbline.core.finding import plain

F = TypeVar("F", bound=Callable[..., Any])
Names = tuple[str, ...]


@dataclass(frozen=True)
class Paper:
    """Where a method comes from. ``title`` is the exact title; ``authors`` the first surname or the group."""

    title: str
    authors: str
    year: int
    arxiv: str = ""

    def bibtex(self) -> str:
        """A BibTeX entry; the key is the first author's surname, the year and the title's first long word."""
        surname = re.sub(r"\W", "", self.authors.split(",")[0].split()[0]).lower()
        word = next((w for w in re.findall(r"[A-Za-z]+", self.title) if len(w) > 3), "paper").lower()
        lines = [f"  title = {{{{{self.title}}}}}", f"  author = {{{self.authors.replace(' et al.', ' and others')}}}"]
        lines += [f"  year = {{{self.year}}}"]
        if self.arxiv:
            lines += [f"  eprint = {{{self.arxiv}}}", "  archivePrefix = {arXiv}"]
        return f"@article{{{surname}{self.year}{word},\n" + ",\n".join(lines) + "\n}"


@dataclass(frozen=True)
class Bound:
    """The numbers a hyper-parameter may take. NaN is never admitted."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def admits(self, value: float) -> bool:
        tests = ((self.gt, "__gt__"), (self.ge, "__ge__"), (self.lt, "__lt__"), (self.le, "__le__"))
        return value == value and all(limit is None or getattr(float(value), op)(limit) for limit, op in tests)

    def __str__(self) -> str:
        signs = ((">", self.gt), (">=", self.ge), ("<", self.lt), ("<=", self.le))
        return " and ".join(f"{sign} {limit:g}" for sign, limit in signs if limit is not None)


Positive = Annotated[float, Bound(gt=0)]
NonNegative = Annotated[float, Bound(ge=0)]
Probability = Annotated[float, Bound(ge=0, le=1)]
Count = Annotated[int, Bound(ge=1)]


@dataclass(frozen=True)
class Param:
    """One keyword-only argument as its annotation states it."""

    name: str
    type: Any
    bound: Bound | None
    optional: bool
    default: Any
    choices: tuple[Any, ...] = ()

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def shown(self) -> Any:
        """The default as it is told: a function by its name, whose address changes from run to run."""
        return getattr(self.default, "__name__", self.default) if callable(self.default) else self.default

    def describe(self) -> str:
        noun = {float: "a number", int: "a whole number"}.get(self.type, getattr(self.type, "__name__", str(self.type)))
        text = "one of " + ", ".join(map(repr, self.choices)) if self.choices else noun
        return text + (f" {self.bound}" if self.bound else "") + (" or None" if self.optional else "")

    def admits(self, value: Any) -> bool:
        if value is None:
            return self.optional
        if self.choices:
            return value in self.choices
        if self.type in (int, float):
            whole = isinstance(value, int) or (hasattr(value, "__index__") and self.type is int)
            number = whole or (self.type is float and hasattr(value, "__float__"))
            if isinstance(value, (bool, str)) or not number or getattr(value, "ndim", 0) != 0:
                return False
            return value == value if self.bound is None else self.bound.admits(float(value))
        return callable(value) if self.type is Callable else isinstance(value, self.type)

    def check(self, method: str, value: Any) -> None:
        if not self.admits(value):
            remedy = "see its docstring" if self.required else f"pass {self.name}={self.shown!r}"
            raise refuse(method, self.name, self.describe(), value, remedy)


@dataclass
class Card:
    """All that the library knows of one method; read by the catalogue, CLI, docs, checks and reports."""

    name: str
    kind: Kind
    room: str
    paper: Paper | None
    says: str
    differs: tuple[str, ...]
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    doc: str
    module: str
    roles: tuple[str, ...]
    params: dict[str, Param]
    fn: Callable[..., Any]
    claims: list[Claim] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        paper = None if self.paper is None else dict(vars(self.paper))
        claims = [{"sentence": c.sentence, "name": c.name, "cost": c.cost} for c in self.claims]
        params = {
            p.name: {"expects": p.describe(), "default": None if p.required else plain(p.shown)}
            for p in self.params.values()
        }
        told: dict[str, Any] = {"name": self.name, "room": self.room, "kind": self.kind.name}
        told |= {"paper": paper, "says": self.says}
        told |= {"differs": list(self.differs), "needs": list(self.needs), "gives": list(self.gives)}
        return told | {"params": params, "claims": claims}


@dataclass(frozen=True)
class Kind:
    """A kind of method, declared in one place: its name, call shape, checks module and place in the stack.

    Calling a kind makes the decorator of a method: ``@probe(paper=..., says=..., differs=..., needs=..., gives=...)``.
    ``needs`` names the tables or resources a probe reads; ``gives`` the names of the numbers it can report.
    ``order`` is the place in which kinds act when composed: weights, activations, attention, caches, logits, loops.
    ``cost`` says in plain words what using one takes; the catalogue's search reads it.
    """

    name: str
    call: str
    order: int
    cost: str

    @property
    def checks(self) -> str:
        return f"plumbline.checks.{self.name}"

    def __call__(
        self, *, paper: Paper | None, says: str, differs: Names = (), needs: Names = (), gives: Names = ()
    ) -> Callable[[F], F]:
        def declare(fn: F) -> F:
            card = _read(self, fn, paper, says, {"differs": differs, "needs": needs, "gives": gives})

            @functools.wraps(fn)
            def checked(*args: Any, **kwargs: Any) -> Any:
                for name, value in kwargs.items():
                    if name in card.params:
                        card.params[name].check(card.name, value)
                return fn(*args, **kwargs)

            checked.card = card  # type: ignore[attr-defined]
            card.fn = checked
            return checked  # type: ignore[return-value]

        return declare


weight_rule = Kind(
    "weight_rule", "(base [S], tuned: list of [S], *, stats=None, hyper) -> [S]", 0, "without training, on weight files"
)
edit = Kind("edit", "factory(*, hyper) -> (x [B,T,D]) -> [B,T,D]", 1, "without training, at inference")
logit_rule = Kind(
    "logit_rule",
    "factory(model..., *, hyper) -> (tokens [B,T], logits [B,V]) -> [B,V]",
    4,
    "without training, at decoding time",
)
sampler = Kind(
    "sampler",
    "(model, input_ids, *, logits_processor, stopping_criteria, generation_config) -> ids",
    5,
    "without training, at decoding time",
)
selector = Kind("selector", "(samples: Samples, *, hyper) -> Selection", 6, "without training, after sampling")
objective = Kind(
    "objective", "(x: Scored, x_ref: Scored, ..., *, hyper) -> [B] or [B,T]", 6, "needs training, a fine-tuning loss"
)
probe = Kind("probe", "(comparison or LM, ..., *, hyper) -> Finding", 7, "a measurement, without training")
function = Kind(
    "function",
    "(arrays with the shapes of its docstring, *, hyper) -> as its docstring says",
    8,
    "a plain function of arrays",
)
KINDS = {kind.name: kind for kind in (weight_rule, edit, logit_rule, sampler, selector, objective, probe, function)}


def _read(
    kind: Kind, fn: Callable[..., Any], paper: Paper | None, says: str, lists: dict[str, tuple[str, ...]]
) -> Card:
    """Name and room from the file, hyper-parameters and bounds from annotations, docs from the docstring."""
    name, module = fn.__name__, fn.__module__
    parts = module.split(".")
    inside = parts[0] == "plumbline"
    if inside and parts[-1] != f"_{name}":
        raise DeclarationError(f"{module}: the public name must equal the file's; rename {name} or the file")
    doc = inspect.getdoc(fn) or ""
    if not doc:
        raise DeclarationError(f"{name}: a docstring with the equation and shapes is required")
    for what, value in lists.items():
        if not isinstance(value, tuple) or not all(isinstance(v, str) for v in value):
            raise DeclarationError(f"{name}: {what}= must be a tuple of sentences, got {value!r}; write ({value!r},)")
    if not says.strip() or "\n" in says:
        raise DeclarationError(f"{name}: says= must be one sentence, got {says!r}")
    if paper is None and not lists["differs"]:
        raise DeclarationError(f"{name}: give its paper, or say in differs= that the measure is standard")
    roles, params = _signature(fn, name)
    room = "/".join(parts[1:-1]) if inside else ""
    named: Any = lists
    return Card(name, kind, room, paper, says, **named, doc=doc, module=module, roles=roles, params=params, fn=fn)


def _signature(fn: Callable[..., Any], name: str) -> tuple[tuple[str, ...], dict[str, Param]]:
    try:
        hints = typing.get_type_hints(fn, include_extras=True)
    except Exception as error:  # an annotation can fail in any way; all of them are the author's to mend
        raise DeclarationError(f"{name}: annotations cannot be read ({error}); import the types at run time") from error
    roles, params = [], {}
    for p in inspect.signature(fn).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if p.kind is not p.KEYWORD_ONLY:
            if typing.get_origin(hints.get(p.name)) is Annotated:
                raise DeclarationError(f"{name}: hyper-parameter {p.name} must be keyword-only; put * before it")
            roles.append(p.name)
            continue
        if p.name not in hints:
            raise DeclarationError(
                f"{name}: hyper-parameter {p.name} has no annotation; write {p.name}: Positive = ..."
            )
        params[p.name] = _param(name, p.name, hints[p.name], p.default)
    return tuple(roles), params


def _param(method: str, name: str, hint: Any, default: Any) -> Param:
    """Interpret one annotation, or fail: what the library cannot check it does not accept."""
    optional, bound, choices = False, None, ()
    if typing.get_origin(hint) in (Union, types.UnionType):
        members = [a for a in typing.get_args(hint) if a is not type(None)]
        optional = len(members) < len(typing.get_args(hint))
        hint = members[0] if len(members) == 1 else tuple(typing.get_origin(m) or m for m in members)
    if typing.get_origin(hint) is Annotated:
        hint, *extras = typing.get_args(hint)
        if len(extras) != 1 or not isinstance(extras[0], Bound) or hint not in (int, float):
            raise DeclarationError(
                f"{method}: {name} is annotated with {extras!r}; only one Bound on int or float can be read"
            )
        bound = extras[0]
    origin = typing.get_origin(hint)
    if origin is Literal:
        hint, choices = str, typing.get_args(hint)
    elif hint is typing.Callable or origin in (Callable, getattr(typing.Callable, "__origin__", None)):
        hint = Callable
    elif origin is not None:
        hint = origin
    if not (hint is Callable or isinstance(hint, (type, tuple))):
        raise DeclarationError(
            f"{method}: {name} is annotated {hint!r}, which cannot be checked; use Positive, Count, ..."
        )
    param = Param(name, hint, bound, optional, default, choices)
    if not param.required and not param.admits(default):
        raise DeclarationError(f"{method}: the default {name}={default!r} is not {param.describe()}")
    return param


@dataclass(frozen=True)
class Evidence:
    """What a claim's run found.

    Attributes:
        holds: the finding was seen.
        measured: the numbers it rests on.
        control: True when the control (the baseline, the ablated method, the wrong sign) failed as it must.
    """

    holds: bool
    measured: Mapping[str, Any]
    control: bool

    def __post_init__(self) -> None:
        if not isinstance(self.measured, Mapping) or not self.measured:
            raise DeclarationError(f"a claim must record measured numbers by name, got {self.measured!r}")
        object.__setattr__(self, "holds", bool(self.holds))
        object.__setattr__(self, "control", bool(self.control))
        object.__setattr__(self, "measured", plain(self.measured))

    @property
    def passed(self) -> bool:
        return self.holds and self.control


@dataclass(frozen=True)
class Claim:
    """A paper's finding as a runnable check on a small, exactly understood case."""

    card: Card
    name: str
    sentence: str
    cost: str
    run: Callable[[], Evidence]

    @property
    def seconds(self) -> float:
        """The declared cost in seconds, whatever the device."""
        amount, unit = re.fullmatch(r"\w+:([\d.]+)(s|m|h)", self.cost).groups()  # type: ignore[union-attr]
        return float(amount) * {"s": 1, "m": 60, "h": 3600}[unit]


def claim(method: Callable[..., Any], sentence: str, *, cost: str) -> Callable[[F], F]:
    """Attach a claim to a method of the same file. ``cost`` is ``"cpu:2s"``, ``"cpu:10m"`` or ``"gpu:1h"``."""

    def attach(fn: F) -> F:
        card: Card | None = getattr(method, "card", None)
        if card is None or fn.__module__ != card.module:
            raise DeclarationError(f"{fn.__name__}: a claim belongs in the file of the declared method it is about")
        if not re.fullmatch(r"(cpu|gpu):[\d.]+(s|m|h)", cost):
            raise DeclarationError(f"{card.name}: cost must look like cpu:2s, cpu:10m or gpu:1h, got {cost!r}")

        @functools.wraps(fn)
        def run() -> Evidence:
            evidence = fn()
            if not isinstance(evidence, Evidence):
                raise InputError(
                    f"{card.name}: claim {fn.__name__} must return Evidence, got {type(evidence).__name__}"
                )
            return evidence

        card.claims.append(Claim(card, fn.__name__, sentence, cost, run))
        return run  # type: ignore[return-value]

    return attach
