"""An audit of any categorical sampler: does it draw what it was asked to, in the tail as well?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.diffusion.draws import (
    check_probs,
    effective_temperature,
    exponential_race,
    gumbel_max,
    inverse,
    mask_dominated,
)
from plumbline.kernels.seeds import generator


@dataclass(frozen=True)
class _Audit:
    """What the draws say."""

    chi2: float
    p: float
    tail_expected: float
    tail_found: int
    tail_p: float
    temperature: float
    draws: int

    def passes(self, level: float = 1e-3) -> bool:
        """Neither test rejects at ``level`` / 2."""
        return min(self.p, self.tail_p) >= level / 2


@function(
    paper=Paper(
        "Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate Categorical Sampling",
        "Zheng et al.",
        2024,
        arxiv="2409.02908",
    ),
    says="Test whether a sampler draws from the probabilities that it is given, over all and in the tail.",
    differs=("The paper shows the bias by generated text's entropy; here the draws themselves are tested.",),
)
def audit_sampler(
    sampler: Callable[[Tensor, int], Tensor], probs: Tensor, *, draws: Count = 200_000,
    tail: Annotated[float, Bound(gt=0, lt=1)] = 0.01,
) -> _Audit:  # fmt: skip
    r"""A chi-square test over all tokens and an exact binomial test of how often the tail comes.

    .. math:: \chi^2 = \sum_c \frac{(O_c - n p_c)^2}{n p_c}, \qquad O_{tail} \sim Bin(n, p_{tail})

    Cells of fewer than 5 expected draws are pooled, the least likely first. The tail holds the least likely tokens, as
    many as have at most ``tail`` of the mass between them: coarse uniforms starve it long before the bulk moves.

    Args:
        sampler: ``(probs [V] float64, n) -> ids [n]``; ``draws.gumbel_max(torch.float32)``, ``draws.exponential_race``
            and ``draws.inverse`` are such.
        probs: [V]. draws: n.

    Returns:
        ``.chi2`` and ``.p``; ``.tail_expected``, ``.tail_found`` and the two-sided ``.tail_p``; ``.temperature`` that
        the draws amount to (1: as asked); ``.passes(level=1e-3)``.
    """
    from scipy import stats  # slow to import

    p = check_probs("audit_sampler", probs)
    if p.dim() != 1 or len(p) < 2:
        raise refuse("audit_sampler", "probs", "[V] with V >= 2", list(p.shape), "audit one distribution at a time")
    ids = torch.as_tensor(sampler(p, draws)).flatten()
    if ids.shape != (draws,) or int(ids.min()) < 0 or int(ids.max()) >= len(p):
        raise refuse("audit_sampler", "sampler", f"{draws} ids below {len(p)}", f"{len(ids)} up to {int(ids.max())}",
                     "return one id a draw")  # fmt: skip
    found, asked = torch.bincount(ids.cpu(), minlength=len(p)).numpy(), p.cpu().numpy()
    order = np.argsort(asked, kind="stable")
    rare = order[: max(1, int((np.cumsum(asked[order]) <= tail).sum()))]
    observed, expected = _pooled(found[order].astype(float), draws * asked[order])
    impossible = bool((found[asked == 0] > 0).any())
    chi2 = np.inf if impossible else float(((observed - expected) ** 2 / expected).sum())
    mass, seen = float(asked[rare].sum()), int(found[rare].sum())
    tail_p = float(stats.binomtest(seen, draws, min(mass, 1.0)).pvalue)
    spread = effective_temperature(torch.from_numpy(found / draws), p.cpu())
    return _Audit(
        chi2, float(stats.chi2.sf(chi2, max(len(expected) - 1, 1))), draws * mass, seen, tail_p, spread, draws
    )


def _pooled(observed: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells in rising order of probability, neighbours merged until each expects at least 5."""
    cells, sums = list[tuple[float, float]](), (0.0, 0.0)
    for o, e in zip(observed, expected, strict=True):
        sums = (sums[0] + o, sums[1] + e)
        if sums[1] >= 5:
            cells.append(sums)
            sums = (0.0, 0.0)
    if sums[1] > 0:  # fewer than 5 left over: with the cell before
        before = cells.pop() if cells else (0.0, 0.0)
        cells.append((before[0] + sums[0], before[1] + sums[1]))
    got, wanted = np.array(cells).T
    return got, wanted


@claim(audit_sampler, "Gumbel draws with few bits starve the tail; float64 inversion does not.", cost="cpu:20s")
def the_tail_starves() -> Evidence:
    p, g = mask_dominated(30, 0.99), generator(0, "audit")
    samplers = {"gumbel float16": gumbel_max(torch.float16, g), "race float16": exponential_race(torch.float16, g),
                "gumbel float64": gumbel_max(torch.float64, g), "inverse float64": inverse(g)}  # fmt: skip
    found = {name: audit_sampler(draw, p) for name, draw in samplers.items()}
    measured = {name: {"p": a.p, "tail_p": a.tail_p, "temperature": a.temperature} for name, a in found.items()}
    caught = all(not found[f"{name} float16"].passes() for name in ("gumbel", "race"))
    fine = all(found[f"{name} float64"].passes() for name in ("gumbel", "inverse"))
    return Evidence(holds=fine, measured=measured, control=caught)
