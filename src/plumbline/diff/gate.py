"""``--fail-on``: expressions over findings that turn a comparison into a release gate."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from plumbline.core.declare import Card
from plumbline.core.errors import refuse
from plumbline.core.finding import Finding

_SIGNS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|==|!=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(%?)\s*")


@dataclass(frozen=True)
class Condition:
    """``name sign number``: the run fails when it is true of the named finding's value."""

    name: str
    sign: str
    number: float
    text: str

    def fails(self, findings: Mapping[str, Finding]) -> str | None:
        """Why the gate closes, or None. A finding that has no value cannot vouch for the release: it closes it too."""
        finding = findings.get(self.name)
        if finding is None or finding.value is None:
            return f"{self.text}: {self.name} was not measured" + (f" ({finding.sentence})" if finding else "")
        if _SIGNS[self.sign](finding.value, self.number):
            return f"{self.text}: {self.name} is {finding.value:.6g}"
        return None


def parse(expressions: Iterable[str], cards: Iterable[Card]) -> list[Condition]:
    """Conditions of ``--fail-on``; several may be joined by ``or``. Unknown findings are refused before the run."""
    known = sorted({name for card in cards for name in (card.name, *card.gives)})
    conditions = []
    for expression in expressions:
        for part in re.split(r"\s+or\s+|\s*;\s*", expression.strip()):
            match = _FORM.fullmatch(part)
            if match is None:
                form = 'of the form "negative_flips > 0.02"'
                raise refuse("diff", "--fail-on", form, repr(part), "name a finding, a sign and a number")
            name, sign, number, percent = match.groups()
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise refuse("diff", "--fail-on", "about a known finding", name, f"{hint}known: {', '.join(known)}")
            conditions.append(Condition(name, sign, float(number) / (100 if percent else 1), part.strip()))
    return conditions
