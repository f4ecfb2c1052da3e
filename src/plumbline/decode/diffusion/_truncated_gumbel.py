"""What a Gumbel draw with coarse uniforms really samples: the law p' of the truncated Gumbel trick."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, claim, function
from plumbline.decode.diffusion.draws import check_probs, effective_temperature, mask_dominated
from plumbline.kernels.seeds import generator


@function(
    paper=Paper(
        "Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate Categorical Sampling",
        "Zheng et al.",
        2024,
        arxiv="2409.02908",
    ),
    says="The distribution that the Gumbel trick samples when its uniforms have only so many bits.",
    differs=(
        "Uniforms are continuous below their largest value, as in the paper. Real ones lie on a lattice, which is "
        "milder: with x = e0 / p a rare token comes x / (exp(x) - 1) as often as asked, where this law has exp(-x). "
        "The claim measures the temperature under both.",
    ),
)
def truncated_gumbel(probs: Tensor, *, bits: Count = 24) -> Tensor:
    r"""The law p' of :math:`\arg\max_i \log p_i - \log(-\log u_i)` with :math:`u_i \le 1 - 2^{-bits}`.

    Sorted by falling p, with :math:`e_0 = -\log(1 - 2^{-bits})`, :math:`b_i = e_0 / p_i`,
    :math:`C_i = p_1 + \dots + p_i`:

    .. math:: S_1 = 1,\; S_{i+1} = S_i e^{-C_i (b_{i+1} - b_i)},\; b_{K+1} = \infty, \qquad
        p'_n = p_n \sum_{i \ge n} (S_i - S_{i+1}) / C_i

    No Gumbel exceeds :math:`-\log e_0` (16.6 for float32), so unlikely tokens come too seldom: where a mask holds most
    of the mass, as in every step of masked diffusion, the tokens that are drawn come from a sharper law than the
    model's. bits: 53, 24, 11, 8 for ``torch.rand`` in float64, float32, float16, bfloat16 (``draws.UNIFORM_BITS``).

    Args:
        probs: [..., V], any float dtype, need not add up to 1.

    Returns:
        [..., V] float64, adding up to 1. ``draws.effective_temperature`` says what temperature it amounts to.
    """
    p, order = check_probs("truncated_gumbel", probs).sort(dim=-1, descending=True, stable=True)
    e0 = -math.log1p(-(2.0**-bits))
    starts = e0 / p  # the time at which each token enters the race: infinite for probability 0
    reached = p.cumsum(-1)
    gaps = torch.where(p[..., 1:] > 0, starts[..., 1:] - starts[..., :-1], torch.inf)
    gaps = torch.cat([gaps, torch.full_like(p[..., :1], torch.inf)], -1)
    log_survival = torch.cat([torch.zeros_like(p[..., :1]), -(reached * gaps)[..., :-1].cumsum(-1)], -1)
    ended = log_survival.exp() * -torch.expm1(-reached * gaps)  # S_i - S_{i+1}, without cancellation
    law = p * (ended / reached).flip(-1).cumsum(-1).flip(-1)
    return torch.zeros_like(p).scatter(-1, order, law)


@claim(truncated_gumbel, "Coarse uniforms lower the temperature of masked diffusion by accident.", cost="cpu:20s")
def an_accidental_temperature() -> Evidence:
    p, n, bits = torch.tensor([0.6, 0.3, 0.08, 0.015, 0.004, 0.001], dtype=torch.float64), 2_000_000, 6
    g = generator(0, "truncated")
    counts = torch.zeros(len(p), dtype=torch.float64)
    for _ in range(20):
        u = torch.rand(n // 20, len(p), generator=g, dtype=torch.float64) * (1 - 2.0**-bits)
        counts += torch.bincount((p.log() - (-u.log()).log()).argmax(-1), minlength=len(p))
    law = truncated_gumbel(p, bits=bits)
    error = ((counts / n - law).abs() / (law * (1 - law) / n).sqrt()).max()
    temperature, entropy = {}, {}
    step = mask_dominated(50_000)
    for width in (24, 53):
        tokens = truncated_gumbel(step, bits=width)[1:]
        temperature[f"{width} bits"] = effective_temperature(tokens, step[1:])
        tokens = tokens / tokens.sum()
        entropy[f"{width} bits"] = float(-(tokens * tokens.clamp(min=1e-300).log()).sum())
    x = 2.0**-24 / step[1:]
    temperature["24 bits, lattice"] = effective_temperature(step[1:] * x / x.expm1(), step[1:])
    measured = {"worst_z": float(error), "temperature": temperature, "entropy": entropy}
    holds = float(error) < 4 and max(temperature["24 bits"], temperature["24 bits, lattice"]) < 0.98
    holds = holds and entropy["24 bits"] < entropy["53 bits"] - 0.05
    return Evidence(holds=holds, measured=measured, control=abs(temperature["53 bits"] - 1) < 1e-6)
