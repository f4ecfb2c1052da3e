"""Continuous Speculative Decoding: blocks of real-valued drafts, kept or corrected by their densities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, Probability, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.speculate.densities import Verdict, gaussian
from plumbline.kernels.choice import Chooser
from plumbline.kernels.seeds import generator


@dataclass
class _Continuation:
    values: Tensor
    calls: int = 0
    drafted: int = 0
    kept: int = 0
    proposals: int = 0
    exhausted: int = 0


@function(
    paper=Paper(
        "Continuous Speculative Decoding for Autoregressive Image Generation", "Wang et al.", 2024, arxiv="2411.11925"
    ),
    says="Draft several real-valued tokens with a small model and keep or redraw them so that the target's law stays.",
    differs=(
        "The log-ratio is the caller's function: densities.path_log_ratio is exact for denoising heads; the paper's "
        "aligned noise is densities.aligned_log_ratio, an approximation whose bias the tests measure.",
        "The aligned ratio takes s_q / s_p of every step as the derivation gives it; the official runner uses the last "
        "step's variances alone, the other way up, and passes variances where it divides by standard deviations.",
        "Exponents are not divided by an inner temperature (42 in the official runner): no acceptance is exact then.",
        "A residual draw that fails max_tries times ends as a draw from the target and is counted; the official "
        "runner returns zeros after 100.",
        "A block that is kept whole is followed by one draw from the target at the next place, from the same pass.",
        "Blocks stop at the first redrawn place; the official runner redraws places in parallel and keeps later ones.",
    ),
)
def continuous_speculative(
    draft: Callable[[Tensor, int], Tensor], verify: Callable[[Tensor, Tensor], Verdict], prefix: Tensor, *,
    length: Count, block: Count = 8, prefill: Probability = 0.15, max_tries: Count = 10_000,
    chooser: Chooser | None = None,
) -> _Continuation:  # fmt: skip
    r"""Speculative sampling with densities; the residual is drawn by rejection from the target.

    .. math:: x \sim q \text{ kept with } \min(1, p(x)/q(x)); \quad
        \text{else } y \sim p \text{ until kept with } \max(0, 1 - q(y)/p(y))

    A redraw happens with probability TV(p, q) and takes 1 / TV(p, q) draws on average: one target draw a place.

    Args:
        draft: ``(values so far [t, ...], n) -> [n, ...]``, n places drawn one after the other from q.
        verify: ``(values so far [t, ...], drafts [n, ...]) -> Verdict``, one pass of the target over a block:
            ``log_ratio(i, x [m, ...]) -> [m]`` and ``sample(i, m) -> [m, ...]`` for places 0 .. n, each given the
            drafts before it; ``densities.gaussian`` makes one from parameters [n, d].
        prefix: [t, ...] values to go on from, t may be 0. A place may be a number, a vector, a denoising path.
        length: places to add. block: drafts a pass. prefill: share of the places drawn from the target first.
        max_tries: target draws for one residual; when all fail, a plain target draw takes its place.

    Returns:
        ``.values`` [t + length, ...]; ``.calls`` of verify, ``.drafted`` and ``.kept`` places, ``.proposals`` drawn
        for residuals, ``.exhausted`` residuals that ran out of tries (0: the law is exactly the target's).

    Raises:
        InputError: a draft at which its own density is 0, or a log-ratio that is NaN.
    """
    chooser, out, start = chooser or Chooser(), _Continuation(prefix), len(prefix)
    first, end = start + math.ceil(prefill * length), start + length
    while len(out.values) < end:
        now = out.values
        n = 0 if len(now) < first else min(block, end - len(now))
        drafts = draft(now, n) if n else now[:0]
        verdict = verify(now, drafts)
        kept, extra = 0, None
        for i in range(n):
            if not chooser.accept(math.exp(min(_ratio(verdict, i, drafts[i : i + 1], math.inf)[0], 0.0))):
                extra = _residual(verdict, i, max_tries, chooser, out)
                break
            kept += 1
        if extra is None:
            extra = verdict.sample(kept, 1) if len(now) + kept < end else drafts[:0]
        out.values = torch.cat([now, drafts[:kept].to(extra.dtype), extra])
        out.calls, out.drafted, out.kept = out.calls + 1, out.drafted + n, out.kept + kept
    return out


def _ratio(verdict: Verdict, i: int, x: Tensor, impossible: float) -> list[float]:
    found = verdict.log_ratio(i, x).tolist()
    if any(r != r or r == impossible for r in found):
        raise refuse("continuous_speculative", "log_ratio", "finite where its own model drew: no density of 0 there",
                     found, "check that draft, sample and log_ratio use the same parameters")  # fmt: skip
    return found


def _residual(verdict: Verdict, i: int, tries: int, chooser: Chooser, out: _Continuation) -> Tensor:
    """A draw [1, ...] from (p - q)+ normalised, from batches of target draws that double."""
    size, left = 1, tries
    while left:
        size = min(size, left)
        candidates = verdict.sample(i, size)
        for at, ratio in enumerate(_ratio(verdict, i, candidates, -math.inf)):
            out.proposals += 1
            if chooser.accept(-math.expm1(-ratio)):
                return candidates[at : at + 1]
        size, left = min(2 * size, 64), left - size
    out.exhausted += 1
    return verdict.sample(i, 1)


@claim(
    continuous_speculative, "Drafts of N(0,1) verified against N(m,1) are kept with probability 1 - TV.", cost="cpu:6s"
)
def acceptance_is_the_overlap() -> Evidence:
    from scipy import stats

    g, n, m = generator(0, "overlap"), 20_000, 1.0
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    verdict = gaussian(m * one, one, zero, one[:1], g)
    out = continuous_speculative(
        lambda _, k: torch.randn(k, 1, generator=g, dtype=torch.float64), lambda *_: verdict, zero[:0],
        length=n, block=1, prefill=0.0, chooser=Chooser(g),
    )  # fmt: skip
    overlap, rate = 2 * (1 - stats.norm.cdf(m / 2)), out.kept / out.drafted
    proposals = out.proposals / out.drafted
    error = math.sqrt(overlap * (1 - overlap) / out.drafted)
    drafts = torch.randn(n, generator=g, dtype=torch.float64)
    fit = {name: stats.kstest(x, stats.norm(m, 1).cdf).pvalue for name, x in (
        ("output", out.values[:, 0].numpy()), ("unverified", drafts.numpy()))}  # fmt: skip
    holds = abs(rate - overlap) < 4 * error and abs(proposals - 1) < 0.1 and fit["output"] > 1e-3
    measured = {"kept": rate, "1 - TV": float(overlap), "proposals": proposals, "ks": fit}
    return Evidence(holds=holds, measured=measured, control=fit["unverified"] < 1e-3)
