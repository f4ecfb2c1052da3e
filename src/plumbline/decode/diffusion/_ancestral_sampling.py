"""Ancestral sampling of masked diffusion language models in discrete time steps: the baseline, idle steps and all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, Positive, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.diffusion.unmasking import Unmasked, begin, check_logits, fill
from plumbline.decode.masked import plain_logits
from plumbline.kernels.choice import Chooser
from plumbline.kernels.seeds import generator
from plumbline.lab.joint import JointTable, ancestral_law, total_variation


@function(
    paper=Paper("Simple and Effective Masked Diffusion Language Models", "Sahoo et al.", 2024, arxiv="2406.07524"),
    says="Sample a masked diffusion language model in N time steps, each position unmasked at its own random step.",
    differs=(
        "The step at which a position is unmasked is drawn first, which is the same law: a position stays masked "
        "independently of everything else.",
        "Steps that unmask nothing call the network only if it reads the time; the paper caches them likewise.",
    ),
)
def ancestral_sampling(
    logits_fn: Any, x: Tensor, *, mask_token_id: int, steps: Count = 128, temperature: Positive = 1.0,
    alpha: Callable | None = None, timed: bool = False, chooser: Chooser | None = None,
) -> Unmasked:  # fmt: skip
    r"""From time t to s < t a masked position stays masked, or takes a token that the network gives it.

    .. math:: P(\text{masked at } s \mid \text{masked at } t) = \frac{1 - \alpha_s}{1 - \alpha_t}, \quad
        x_i \sim \mathrm{softmax}(logits(x_t)_i) \text{ otherwise}

    Positions unmasked in one step are drawn independently: exact only as ``steps`` grows; ``first_hitting`` is its
    limit.

    Args:
        logits_fn: a transformers masked LM, or ``x [B, L] -> logits [B, L, V]``, any float dtype.
        x: [B, L] ids with the mask's where text is missing; any number of masks a row.
        steps: N, from time 1 to 0 in equal parts. alpha: the schedule t -> share unmasked, 1 at 0 and 0 at 1,
            falling; default 1 - t. timed: call ``logits_fn(x, t [B])``, at every step.

    Returns:
        ``Unmasked``: tokens and order [B, L], the passes made, the steps; times with ``timed``.
    """
    model, chooser = plain_logits("ancestral_sampling", logits_fn), chooser or Chooser()
    out = begin("ancestral_sampling", x, mask_token_id)
    out.steps = steps
    hits = _hits(steps, alpha or (lambda t: 1 - t))
    due: list[dict[int, list[int]]] = []
    for row in x:
        mine: dict[int, list[int]] = {}
        for at in (row == mask_token_id).nonzero().flatten().tolist():
            mine.setdefault(chooser.categorical(hits), []).append(at)
        due.append(mine)
    if timed:
        out.times = torch.full(x.shape, torch.nan, dtype=torch.float64, device=x.device)
    drawn = [0] * len(x)
    for step in range(steps):
        rows = list(range(len(x))) if timed else [b for b, mine in enumerate(due) if step in mine]
        if not rows:
            continue
        given = out.tokens[rows]
        time = 1 - step / steps
        args = (torch.full((len(rows),), time, device=x.device),) if timed else ()
        logits = check_logits("ancestral_sampling", model(given, *args), given)
        out.calls += 1
        for i, b in enumerate(rows):
            if at := due[b].get(step):
                fill(out, b, at, logits[i, at], mask_token_id, temperature, chooser, drawn[b])
                drawn[b] += 1
                if out.times is not None:
                    out.times[b, at] = time
    return out


def _hits(steps: int, alpha: Callable[[float], float]) -> Tensor:
    """Probability [N] that a masked position is unmasked in each step."""
    shares = torch.tensor([float(alpha(1 - k / steps)) for k in range(steps + 1)], dtype=torch.float64)
    if abs(shares[0]) > 0.01 or abs(shares[-1] - 1) > 0.01 or not bool((shares.diff() >= 0).all()):
        raise refuse("ancestral_sampling", "alpha", "falling from 1 at t = 0 to 0 at t = 1", shares.tolist()[:4],
                     "pass the share of unmasked tokens at time t")  # fmt: skip
    return shares.diff()


@claim(
    ancestral_sampling, "Most of many steps unmask nothing, and few steps draw dependent tokens apart.", cost="cpu:5s"
)
def idle_or_wrong() -> Evidence:
    table, length, n = JointTable.random(2, 3, seed=1), 6, 1000

    def uniform(x: Tensor) -> Tensor:
        return torch.zeros(*x.shape, 3)

    out = ancestral_sampling(uniform, torch.full((4, length), 2), mask_token_id=2, steps=n,
                             chooser=Chooser(generator(0)))  # fmt: skip
    one, many = (total_variation(ancestral_law(table.masked, 2, 3, [1 - 1 / k for k in range(s, 0, -1)]), table.law())
                 for s in (1, 128))  # fmt: skip
    measured = {"steps": n, "steps_with_a_pass": out.calls, "tv_1_step": one, "tv_128_steps": many}
    return Evidence(holds=out.calls <= 4 * length and many < 0.01, measured=measured, control=one > 0.05)
