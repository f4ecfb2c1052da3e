"""A Finding: one measured number with its interval, its sentence, and what a person needs to see beside it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plumbline.core.errors import InputError

if TYPE_CHECKING:
    from plumbline.kernels.stats import Estimate


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a probe returns and the report renders.

    Attributes:
        name: identifier, unique over all findings and their parts; ``--fail-on`` names it.
        title: the name people know it by; defaults to ``name``.
        value: the headline number, or None where it is undefined (``sentence`` then says why).
        unit: "nats", "share of positions", "tokens", ...
        sentence: one plain sentence a person can act on.
        interval: (low, high), or None with the reason in ``warnings``.
        direction: +1 more is better, -1 less is better, 0 neither.
        needs: what the measurement needs and what would make it meaningless.
        table: rows for people to sort and filter.
        figure: a plotly figure as a plain dict.
        texts: token heat maps, ``{"title", "tokens": [{"text", "score", "label", "note"}]}``.
        parts: further named numbers of the same measurement.
    """

    name: str
    value: float | None
    sentence: str
    title: str = ""
    unit: str = ""
    interval: tuple[float, float] | None = None
    interval_method: str = ""
    n_items: int = 0
    n_clusters: int = 0
    direction: int = 0
    needs: str = ""
    table: tuple[Mapping[str, Any], ...] = ()
    figure: Mapping[str, Any] | None = None
    texts: tuple[Mapping[str, Any], ...] = ()
    parts: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise InputError(f"a finding's name must be an identifier, got {self.name!r}")
        for what in ("table", "texts", "parts", "warnings"):
            object.__setattr__(self, what, tuple(getattr(self, what)))
        if self.value is not None:
            object.__setattr__(self, "value", float(self.value))
        if self.interval is not None:
            low, high = self.interval
            object.__setattr__(self, "interval", (float(low), float(high)))
        object.__setattr__(self, "title", self.title or self.name.replace("_", " "))

    @classmethod
    def of(cls, name: str, estimate: Estimate, *, warnings: tuple[str, ...] = (), **more: Any) -> Finding:
        """A finding whose value, interval and counts come from a statistics kernel's estimate."""
        known = estimate.low is not None and estimate.high is not None
        fields: dict[str, Any] = {
            "value": estimate.value,
            "interval": (estimate.low, estimate.high) if known else None,
            "interval_method": f"{estimate.method}, {estimate.level:.0%}" if known else estimate.method,
            "n_items": estimate.n_items,
            "n_clusters": estimate.n_clusters,
            "warnings": (*estimate.warnings, *warnings),
        }
        return cls(name=name, **(fields | more))

    def flat(self) -> dict[str, Finding]:
        """This finding and all of its parts by name; a name used twice is an error."""
        found = {self.name: self}
        for part in self.parts:
            for name, finding in part.flat().items():
                if name in found:
                    raise InputError(f"two findings are named {name!r}; names are unique over findings and parts")
                found[name] = finding
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; numbers that are not finite become None."""
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        told["parts"] = [part.to_json() for part in self.parts]
        return plain(told)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Finding:
        """The inverse of :meth:`to_json`."""
        parts = tuple(cls.from_json(part) for part in told["parts"])
        return cls(**{**told, "parts": parts, "interval": tuple(told["interval"]) if told["interval"] else None})


def plain(value: Any) -> Any:
    """Any nest of mappings, sequences, numpy or tensor scalars as JSON types; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
