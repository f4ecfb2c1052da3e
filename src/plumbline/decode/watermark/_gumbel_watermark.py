"""The exact Gumbel watermark: the key, not chance, decides, and whoever lacks it sees the model's own distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, Paper, claim, logit_rule
from plumbline.decode.watermark import trials
from plumbline.decode.watermark.gumbel import nucleus, numbers
from plumbline.decode.watermark.keys import MILLIONTH_PRIME, Hashed, TokenRule, repeated
from plumbline.kernels.peer import Rule


@logit_rule(
    paper=Paper(
        "Watermarking Degrades Alignment in Language Models: Analysis and Mitigation", "Verma et al.", 2025,
        arxiv="2506.04462",
    ),
    says="Pick the token by a keyed Gumbel-max draw: undetectable without the key, the model's distribution over keys.",
    differs=(
        "The rule is Aaronson's (2022) as this paper studies it.",
        "Computed as argmax of log p - log(-log r), which is the argmax of r^(1/p) without its underflow.",
        "temperature and top_p default to 1, the model's own distribution; the paper runs 0.8 to 1 and 0.95.",
        "skip_repeats is added: it leaves a step to chance where the context stood earlier in the row.",
    ),
)  # fmt: skip
def gumbel_watermark(
    *,
    key: int = MILLIONTH_PRIME,
    context: Count = 1,
    self_hash: bool = False,
    temperature: Annotated[float, Bound(gt=0, lt=math.inf)] = 1.0,
    top_p: Annotated[float, Bound(gt=0, le=1)] = 1.0,
    skip_repeats: bool = False,
    scheme: Callable = Hashed,
) -> Rule:
    r"""All weight on the winner of a keyed race.

    .. math:: x_t = \arg\max_v r_v^{1 / p_v} = \arg\max_v\,[\log p_v - \log(-\log r_v)], \qquad r_v = U_k(x_{t-h:t}, v)

    Over keys, P(x_t = v) = p_v exactly, the p of ``temperature`` and ``top_p``. A text is distributed as the model's as
    long as no context of h tokens comes twice: then the same numbers decide again, and with h = 1 the text may even
    loop. ``skip_repeats`` leaves those steps unmarked, and whole texts exact; a larger h makes them rare. Two samples
    of one prompt are the same. Not for beam search: every beam has one way on.

    Args:
        key: the secret. context: h, how many tokens the numbers depend on. self_hash: the candidate is one of them.
        temperature, top_p: of the distribution sampled from; generate's own must be off, see ``sampling_settings``.
        skip_repeats: return log p instead where the last h tokens stood together earlier in the row.
        scheme: makes the keyed numbers, see ``plumbline.decode.watermark.keys.Scheme``; the detector needs the same.

    Returns:
        A rule (tokens [B, T], logits [B, V]) -> [B, V]: 0 for the picked token, -inf for all others.
    """
    keyed = scheme(key=key, context=context, self_hash=self_hash)

    def race(tokens: Tensor, logits: Tensor) -> Tensor:
        logp = nucleus(logits, temperature, top_p)
        winner = (logp - (-numbers(keyed, tokens, logits.shape[-1]).log()).log()).argmax(-1, keepdim=True)
        out = torch.full_like(logits, -torch.inf).scatter(1, winner, 0.0)
        if skip_repeats:
            out = torch.where(repeated(tokens, context)[:, None], logp.to(out.dtype), out)
        return out

    return TokenRule("gumbel_watermark", race)


@claim(
    gumbel_watermark,
    "Averaged over keys the picked token is distributed as the model's own, to 1e-9; the diverse form's is not.",
    cost="cpu:5s",
)
def lossless_over_keys() -> Evidence:
    from plumbline.decode.watermark import diverse_gumbel_watermark

    worst = 0.0
    for p in ([0.5, 0.3, 0.2], [0.9, 0.09, 0.01], [0.34, 0.33, 0.33]):
        target = torch.tensor(p, dtype=torch.float64)
        worst = max(worst, float((trials.picks_over_keys(gumbel_watermark, target) - target).abs().max()))
    target = torch.tensor([0.8, 0.2], dtype=torch.float64)
    lossy = trials.distance(trials.average_over_numbers(diverse_gumbel_watermark, target), target)
    measured = {"largest error, exact": worst, "total variation, diverse": lossy}
    return Evidence(holds=worst < 1e-9, measured=measured, control=lossy > 0.02)
