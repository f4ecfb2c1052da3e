"""The modified Gumbel watermark: the key tilts the odds and chance still decides, so samples of one prompt differ."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, Paper, claim, logit_rule
from plumbline.decode.watermark import trials
from plumbline.decode.watermark.gumbel import nucleus, numbers
from plumbline.decode.watermark.keys import MILLIONTH_PRIME, Hashed, TokenRule
from plumbline.kernels.peer import Rule


@logit_rule(
    paper=Paper(
        "Watermarking Degrades Alignment in Language Models: Analysis and Mitigation", "Verma et al.", 2025,
        arxiv="2506.04462",
    ),
    says="Sample from the keyed weights r^(1/p) instead of taking the largest: less exact, several different samples.",
    differs=(
        "Scores are shifted so that the largest is 0, which no sampler feels and float32 needs.",
        "temperature and top_p default to 1, the model's own distribution; the paper runs 0.8 to 1 and 0.95.",
    ),
)  # fmt: skip
def diverse_gumbel_watermark(
    *,
    key: int = MILLIONTH_PRIME,
    context: Count = 1,
    self_hash: bool = False,
    temperature: Annotated[float, Bound(gt=0, lt=math.inf)] = 1.0,
    top_p: Annotated[float, Bound(gt=0, le=1)] = 1.0,
    scheme: Callable = Hashed,
) -> Rule:
    r"""Log-weights of the keyed race, for a sampler to draw from.

    .. math:: P(x_t = v) \propto r_v^{1 / p_v}, \qquad l'_v = \frac{\log r_v}{p_v} - \max_u \frac{\log r_u}{p_u}

    Lossy: at p = (0.8, 0.2) the key-averaged distribution is 0.034 away in total variation, and a flat p over a
    large vocabulary is drawn to the few largest r. Not for beam search, which would add up weights that are not
    log-probabilities of the model. ``detect_gumbel_watermark`` finds both forms.

    Args:
        key: the secret. context: h, how many tokens the numbers depend on. self_hash: the candidate is one of them.
        temperature, top_p: make p out of the logits; generate's own must be off, see ``sampling_settings``.
        scheme: makes the keyed numbers, see ``plumbline.decode.watermark.keys.Scheme``; the detector needs the same.

    Returns:
        A rule (tokens [B, T], logits [B, V]) -> [B, V]; -inf outside the nucleus.
    """
    keyed = scheme(key=key, context=context, self_hash=self_hash)

    def tilt(tokens: Tensor, logits: Tensor) -> Tensor:
        p = nucleus(logits, temperature, top_p).exp()
        weight = torch.where(p > 0, numbers(keyed, tokens, logits.shape[-1]).log() / p, -torch.inf)
        return (weight - weight.amax(-1, keepdim=True)).to(logits.dtype)

    return TokenRule("diverse_gumbel_watermark", tilt)


@claim(
    diverse_gumbel_watermark,
    "Several samples of one prompt differ and all are found by the key; the exact form writes the same one each time.",
    cost="cpu:3s",
)
def several_different_samples() -> Evidence:
    from plumbline.decode.watermark import detect_gumbel_watermark, gumbel_watermark

    made = {rule.__name__: trials.write(rule(key=7), 16, 60, prompts=1)
            for rule in (gumbel_watermark, diverse_gumbel_watermark)}  # fmt: skip
    distinct = {name: len(ids.unique(dim=0)) for name, ids in made.items()}
    p_values = detect_gumbel_watermark(made["diverse_gumbel_watermark"], key=7, vocab=trials.VOCAB).p_value
    holds = distinct["diverse_gumbel_watermark"] > 12 and p_values.max() < 1e-4
    measured = {f"distinct of 16, {name}": n for name, n in distinct.items()} | {"largest p-value": p_values.max()}
    return Evidence(holds=bool(holds), measured=measured, control=distinct["gumbel_watermark"] == 1)
