"""How much to draft: as much as pays, judged by what was accepted and by what passes of each width take."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

KEPT = 0.85  # of an average, at every pass
HOPE = 1.15  # what the first width is expected to gain before it was used, over what would just pay
GUESS = 0.06  # price of a draft token over a whole pass, until passes of that width have been timed
SOON, FIRST, LONGEST = 2, 8, 128  # passes until the next wider draft is tried (again); doubled each time that it loses

_timed: weakref.WeakKeyDictionary[Any, dict[tuple[int, int], float]] = weakref.WeakKeyDictionary()


class Backoff:
    r"""Widths of drafts, of which the one with the most tokens a second is used: :math:`r_w = E[g_w] / E[t_w]`.

    A pass with a draft of w nodes tells for every narrower draft what it would have gained: the part of the accepted
    path that lies in its nodes. So the width falls as soon as less would have paid more, down to 0, plain decoding.
    Only a wider draft has to be tried, for one pass, ever more rarely while it loses: a draft that is no good costs
    one narrow pass in ``LONGEST``. How long passes take is remembered for a model from call to call.

    Args:
        widths: ascending numbers of draft tokens, without 0. start: the place of the first to use, 0 being plain.
        trial: passes for which a wider draft is tried: more than 1 where drafts get better by being used.
        price: of a draft token, in passes, instead of a clock: for samplers whose output depends on the width.
        model, rows: whose times are remembered, and in batches of how many rows.
    """

    def __init__(
        self, widths: Sequence[int], *, start: int = 1, trial: int = 1, price: float | None = None, model: Any = None,
        rows: int = 1,
    ) -> None:  # fmt: skip
        self.widths = (0, *widths)
        self.at = self.now = min(start, len(widths))
        self.price, self.trial, self.rows = price, trial, rows
        self.times = {} if model is None or price is not None else _timed.setdefault(model, {})
        self.gains: list[float | None] = [None] * len(self.widths)
        self.spent: list[float | None] = [None] * len(self.widths)
        self.gaps, self.waits = [FIRST] * len(self.widths), [0] * len(self.widths)
        self._trying = 0  # passes that are left of the trial of a wider draft
        self._plain = 2 if price is None and (rows, 0) not in self.times else 0  # the first of all passes is slow

    @classmethod
    def fixed(cls, width: int) -> Backoff:
        """Always ``width``, whatever it costs."""
        made = cls((width,), price=0.0)
        made.observe = lambda nodes, paths, seconds: None  # type: ignore[method-assign]
        return made

    def seconds(self, width: int) -> float:
        """What a pass with ``width`` draft tokens takes, measured or guessed from the nearest that was."""
        if self.price is not None or not any(rows == self.rows for rows, _ in self.times):
            return 1 + (GUESS if self.price is None else self.price) * width
        known = [w for rows, w in self.times if rows == self.rows]
        near = min(known, key=lambda w: (abs(w - width), w))
        return self.times[self.rows, near] * (1 + GUESS * width) / (1 + GUESS * near)

    def width(self) -> int:
        """Draft tokens for the next pass."""
        if self._plain:
            self._plain -= 1
            return 0
        wider = self.at + 1
        if not self._trying and wider < len(self.widths):
            if self.waits[wider] <= 0 and (self.at == 0 or self.gains[self.at] is not None):
                self._trying = self.trial
                self.gains[wider] = self.spent[wider] = None  # judged by what it does now
            self.waits[wider] -= 1
        self.now = wider if self._trying else self.at
        return self.widths[self.now]

    def observe(self, nodes: int, paths: Sequence[Sequence[int]], seconds: float) -> None:
        """A pass with at most ``nodes`` draft nodes a row (0: none was found) entered ``paths``, root 0 first."""
        key = self.rows, min((w for w in self.widths if w >= nodes), default=nodes)
        last = self.times.get(key, seconds)
        self.times[key] = last + (0.7 if seconds < last else 0.2) * (seconds - last)
        if not nodes:
            return  # what is not there tells nothing of how good it would have been
        for i, w in enumerate(self.widths[: self.now + 1]):
            gain = sum(1 + sum(0 < n <= w for n in path) for path in paths) / len(paths)
            timed = i == self.now and self.price is None
            hoped = None if self._trying or not i else HOPE * self.seconds(w) / self.seconds(0)
            self.gains[i] = _average(hoped if self.gains[i] is None else self.gains[i], gain)
            self.spent[i] = _average(self.spent[i], seconds if timed else self.seconds(min(w, nodes)))
        if self._trying:
            self._trying -= 1
            if not self._trying:
                self._judge()
            return
        best = max(range(self.at + 1), key=lambda i: (self._rate(i), -i))
        if best < self.at:
            self.at = best
            self._put_off(best + 1)
        elif self.at + 1 < len(self.widths) and (self.gains[self.at] or 0) > 0.7 * self.widths[self.at]:
            if self.gaps[self.at + 1] == FIRST:  # nearly all of it is right, and more was never found to be too much
                self.waits[self.at + 1] = 0

    def _rate(self, i: int) -> float:
        gain, spent = self.gains[i], self.spent[i]
        return 1 / self.seconds(0) if i == 0 else gain / spent if gain and spent else 0.0

    def _judge(self) -> None:
        if self._rate(self.at + 1) > self._rate(self.at):
            self.at += 1
            for i in range(self.at, len(self.widths)):
                self.gaps[i], self.waits[i] = FIRST, SOON
        else:
            self._put_off(self.at + 1)

    def _put_off(self, i: int) -> None:
        self.waits[i] = self.gaps[i]
        self.gaps[i] = min(2 * self.gaps[i], LONGEST)


def _average(old: float | None, new: float) -> float:
    return new if old is None else KEPT * old + (1 - KEPT) * new
