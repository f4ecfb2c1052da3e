"""The first-hitting sampler of masked diffusion language models: one pass a token, no idle steps, no time error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, Positive, claim, function
from plumbline.decode.diffusion.unmasking import Unmasked, begin, check_logits, fill
from plumbline.decode.masked import plain_logits
from plumbline.kernels.choice import Chooser
from plumbline.lab.enumeration import exact_distribution
from plumbline.lab.joint import JointTable, ancestral_law, total_variation

_PAPER = Paper(
    "Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate Categorical Sampling",
    "Zheng et al.", 2024, arxiv="2409.02908",
)  # fmt: skip


@function(
    paper=_PAPER,
    says="Sample a masked diffusion language model exactly, one forward pass a token instead of one a time step.",
    differs=(
        "Times are drawn only for a network that reads them; without them the law of the text is the same.",
        "The higher-order variant for several tokens a call is left out; per_call > 1 is the plain parallel form.",
        "Tokens are drawn in float64: the paper shows that float32 draws lower the temperature by accident.",
    ),
)
def first_hitting(
    logits_fn: Any, x: Tensor, *, mask_token_id: int, per_call: Count = 1, temperature: Positive = 1.0,
    time_of: Callable | None = None, chooser: Chooser | None = None,
) -> Unmasked:  # fmt: skip
    r"""Jump from one unmasking to the next: choose a masked position uniformly, draw its token, repeat.

    .. math:: 1 - \alpha_{\tau_{n-1}} = (1 - \alpha_{\tau_n})\, u^{1/n}, \quad i \sim U(\text{masked}), \quad
        x_i \sim \mathrm{softmax}(logits(x)_i)

    This is the limit of infinitely many steps of ``ancestral_sampling`` at L forward passes. Rows with fewer masks
    are left out of the passes once they are done. ``per_call`` > 1 fills that many positions of a row from one pass,
    independently of each other: an approximation.

    Args:
        logits_fn: a transformers masked LM, or ``x [B, L] -> logits [B, L, V]``, any float dtype.
        x: [B, L] ids with the mask's where text is missing; any number of masks a row.
        time_of: for a network conditioned on time, called as ``logits_fn(x, t [B])``: the masked share
            :math:`1 - \alpha_t` -> t, ``lambda m: m`` for the schedule :math:`\alpha_t = 1 - t`.
        temperature: of the logits; 1 is the model's own law.

    Returns:
        ``Unmasked``: tokens, order and (with ``time_of``) times [B, L], calls.
    """
    model, chooser = plain_logits("first_hitting", logits_fn), chooser or Chooser()
    out = begin("first_hitting", x, mask_token_id)
    share, drawn = [1.0] * len(x), [0] * len(x)
    if time_of is not None:
        out.times = torch.full(x.shape, math.nan, dtype=torch.float64, device=x.device)
    left = [(row == mask_token_id).nonzero().flatten().tolist() for row in x]
    while rows := [b for b, masked in enumerate(left) if masked]:
        given = out.tokens[rows]
        times, args = [[math.nan]] * len(rows), tuple[Tensor, ...]()
        if time_of is not None:
            times = [_times(share, b, len(left[b]), per_call, time_of, chooser) for b in rows]
            args = (torch.tensor([t[0] for t in times], device=x.device),)
        logits = check_logits("first_hitting", model(given, *args), given)
        out.calls += 1
        for i, b in enumerate(rows):
            hit = [left[b].pop(chooser.index(len(left[b]))) for _ in range(min(per_call, len(left[b])))]
            fill(out, b, hit, logits[i, hit], mask_token_id, temperature, chooser, drawn[b])
            drawn[b] += 1
            if out.times is not None:
                out.times[b, hit] = torch.tensor(times[i], dtype=torch.float64, device=x.device)
    return out


def _times(
    share: list[float], row: int, masked: int, per_call: int, time_of: Callable[[float], float], chooser: Chooser
) -> list[float]:
    """The next times at which positions of a row are unmasked: the largest of n uniforms, then of n - 1 ..."""
    found = []
    for n in range(masked, max(masked - per_call, 0), -1):
        share[row] *= chooser.uniform() ** (1 / n)
        found.append(float(time_of(share[row])))
    return found


@claim(
    first_hitting, "One pass a token gives the model's law, which N time steps only approach as 1 / N.", cost="cpu:5s"
)
def exact_where_steps_are_not() -> Evidence:
    table = JointTable.random(2, 3, seed=1)
    start = torch.full((1, 3), table.mask)

    def sample(per_call: int) -> Callable[[Chooser], tuple[int, ...]]:
        options: Any = {"mask_token_id": table.mask, "per_call": per_call}
        return lambda c: tuple(first_hitting(table.masked, start, chooser=c, **options).tokens[0].tolist())

    def stepped(n: int) -> float:
        return total_variation(ancestral_law(table.masked, 2, 3, [1 - 1 / k for k in range(n, 0, -1)]), table.law())

    exact = total_variation(exact_distribution(sample(1)), table.law())
    parallel = total_variation(exact_distribution(sample(2)), table.law())
    steps = {n: stepped(n) for n in (16, 32, 64, 128)}
    halving = steps[128] / steps[64]
    measured = {
        "tv_first_hitting": exact,
        "tv_of_n_steps": steps,
        "ratio_64_to_128": halving,
        "tv_two_a_call": parallel,
    }
    return Evidence(holds=exact < 1e-10 and 0.45 < halving < 0.55, measured=measured, control=parallel > 0.02)
