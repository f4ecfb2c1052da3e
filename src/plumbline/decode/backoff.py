"""How much to draft: climbs from one width to the next while that pays, and comes back down when it does not."""

from __future__ import annotations

from collections.abc import Sequence

DECAY = 0.9  # weight of what was known of a width against one more pass
FIRST, LONGEST = 8, 128  # passes until a neighbouring width is tried again; doubled each time that it loses


class Backoff:
    r"""Widths of drafts as arms, each judged by what it emits a second, :math:`r_w = \sum n / \sum t`, decayed.

    The best width known is used; now and then one pass tries a neighbour, ever more rarely while that loses, so that
    a draft which is no good costs a pass in ``LONGEST``. Width 0 decodes plainly, and is always among the arms. With
    the time taken from a clock nothing about the draft or the machine needs to be known beforehand; a sampler whose
    output depends on the width passes a price a token instead, and stays reproducible.

    Args:
        widths: ascending numbers of draft tokens, without 0. start: the place of the first to use, 0 the plainest.
        trial: passes for which a width is tried before it is judged: more than 1 where drafts get better by using them.
        price: seconds of a pass as ``1 + price * width`` instead of measured ones.
    """

    def __init__(self, widths: Sequence[int], *, start: int = 1, trial: int = 1, price: float | None = None) -> None:
        self.widths = (0, *widths)
        self.price, self.trial = price, trial
        self.at = self._now = min(start, len(widths))
        self._left = trial  # passes that the width in use is still to be given before it is judged
        self.won, self.spent = [0.0] * len(self.widths), [0.0] * len(self.widths)
        self.gaps, self.waits = [FIRST] * len(self.widths), [0] * len(self.widths)

    @classmethod
    def fixed(cls, width: int) -> Backoff:
        """Always ``width``, whatever it costs."""
        made = cls((width,))
        made.gaps = made.waits = [1 << 62] * 2
        return made

    def rate(self, i: int) -> float | None:
        return self.won[i] / self.spent[i] if self.spent[i] else None

    def width(self) -> int:
        """Draft tokens for the next pass."""
        if self._left <= 0:
            near = [i for i in (self.at - 1, self.at + 1) if 0 <= i < len(self.widths) and self.waits[i] <= 0]
            self._now, self._left = (near[0], self.trial) if near else (self.at, 1)
        for i in range(len(self.widths)):
            self.waits[i] -= 1
        return self.widths[self._now]

    def observe(self, width: int, gained: float, seconds: float) -> None:
        """A pass with a draft of ``width`` (0: none was found) emitted ``gained`` tokens a row in ``seconds``."""
        i = self._now if width else 0
        self.won[i] = DECAY * self.won[i] + gained
        self.spent[i] = DECAY * self.spent[i] + (seconds if self.price is None else 1 + self.price * width)
        if i != self._now:
            return  # nothing was found to draft: that says nothing about the width
        self._left -= 1
        if i != self.at and self._left <= 0:
            self._judge(i)

    def _judge(self, i: int) -> None:
        there, here = self.rate(i), self.rate(self.at)
        if here is None or (there is not None and there > here):
            self.gaps[self.at], self.waits[self.at] = FIRST, FIRST
            self.at, self.gaps[i] = i, FIRST
        else:
            self.gaps[i] = min(2 * self.gaps[i], LONGEST)
            self.waits[i] = self.gaps[i]
