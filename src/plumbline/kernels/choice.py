"""Random outcomes one at a time, and the rule by which a draft is kept or corrected without changing the distribution.

A method that takes its outcomes from a :class:`Chooser` can be replayed over every outcome there is
(``plumbline.lab.enumeration``), which proves its distribution where sampling could only suggest it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Chooser:
    """Draws from a generator; None draws from torch's own, as ``generate`` does.

    Each categorical draw spends one uniform number, in float64: what comes out does not depend on how many draws a
    draft saved, and no tail is cut off by float32's coarse uniforms.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def uniform(self) -> float:
        device = "cpu" if self.generator is None else self.generator.device
        return float(torch.rand((), generator=self.generator, dtype=torch.float64, device=device))

    def categorical(self, probs: Tensor) -> int:
        """An index of ``probs`` [V], which need not add up to 1."""
        total = probs.double().cumsum(0)
        at = int(torch.searchsorted(total, self.uniform() * total[-1], right=True))
        return min(at, int(torch.nonzero(probs)[-1])) if at >= len(probs) else at

    def accept(self, probability: float) -> bool:
        """True with ``probability`` (at least 1: always, at most 0: never)."""
        return self.uniform() < probability

    def index(self, n: int) -> int:
        """A uniform index below ``n``."""
        return min(int(self.uniform() * n), n - 1)


def verify_chain(
    chooser: Chooser,
    target: Sequence[Tensor] | Tensor,
    proposal: Sequence[Tensor | None] | Tensor,
    draft: Sequence[int],
) -> tuple[int, int]:
    r"""Keep a prefix of a drafted chain, so that what is emitted is distributed as the target's own samples.

    Draft :math:`x_i \sim q_i` is kept with probability :math:`\min(1, p_i(x_i) / q_i(x_i))`; the first that is not
    gives way to a draw from :math:`(p_i - q_i)_+` normalised; if all are kept, one more is drawn from :math:`p_n`.
    (Leviathan et al., 2023; Chen et al., 2023.)

    Args:
        target: probabilities p [n + 1, V]; row i is conditioned on the drafts before i.
        proposal: probabilities q [n, V] that the drafts were really drawn from; None in a row: its draft was not drawn.
        draft: n tokens.

    Returns:
        (number of drafts kept, the token after them).
    """
    for i, x in enumerate(draft):
        p, q = target[i].double(), proposal[i]
        if chooser.accept(float(p[x] if q is None else p[x] / q[x].double())):
            continue
        rest = p.index_fill(0, torch.tensor([x], device=p.device), 0) if q is None else (p - q.double()).clamp(min=0)
        # p equal to q up to rounding: nothing is left over, and p itself is right
        return i, chooser.categorical(rest if float(rest.sum()) > 1e-12 else p)
    return len(draft), chooser.categorical(target[len(draft)].double())
