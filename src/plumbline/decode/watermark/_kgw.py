"""The green-list watermark of Kirchenbauer et al.: a keyed part of the vocabulary is made a little likelier."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, Paper, claim, logit_rule
from plumbline.decode.watermark import trials
from plumbline.decode.watermark.keys import MILLIONTH_PRIME, Hashed, TokenRule, windows
from plumbline.kernels.peer import Rule


@logit_rule(
    paper=Paper(
        "Watermarking Degrades Alignment in Language Models: Analysis and Mitigation", "Verma et al.", 2025,
        arxiv="2506.04462",
    ),
    says="Raise the logits of a secret, context-dependent part of the vocabulary, so that a z-test finds the text.",
    differs=(
        "The rule is Kirchenbauer et al.'s (A Watermark for Large Language Models, 2023) as this paper studies it; "
        "gamma = 0.25 and delta = 2 are its runs', the code's class has 0.5 and 1.",
        "The default scheme colours each token by its own hash, so a list holds gamma V tokens on average; scheme="
        "SeededStream draws the paper code's lists, scheme=TransformersGreens those of transformers on a CPU.",
        "Own hash with self_hash weighs every candidate; transformers only the 40 likeliest.",
        "A prompt shorter than the context is extended on the left by zeros; transformers leaves such steps alone.",
    ),
)  # fmt: skip
def kgw(
    *,
    gamma: Annotated[float, Bound(gt=0, lt=1)] = 0.25,
    delta: Annotated[float, Bound(gt=0, lt=math.inf)] = 2.0,
    key: int = MILLIONTH_PRIME,
    context: Count = 1,
    self_hash: bool = False,
    scheme: Callable = Hashed,
) -> Rule:
    r"""Add delta to the green tokens' logits.

    .. math:: l'_v = l_v + \delta\,[v \in G_k(x_{t-h}, \dots, x_{t-1})], \qquad |G| \approx \gamma V

    Lossy: averaged over keys, likely tokens lose to unlikely ones, the more so the larger delta. Greedy, sampled and
    beam search all work. It acts on raw logits, before temperature.

    Args:
        gamma: share of the vocabulary that is green. delta: what is added, in nats.
        key: the secret; whoever detects needs it. context: h, how many tokens seed the list.
        self_hash: the candidate is one of the h; the list survives edits of the others better.
        scheme: makes the keyed lists, see ``plumbline.decode.watermark.keys.Scheme``; the detector needs the same one.

    Returns:
        A rule (tokens [B, T], logits [B, V]) -> [B, V]. In a left-padded batch the padding of a prompt shorter than h
        is context; detection never scores those positions.
    """
    keyed = scheme(key=key, context=context, self_hash=self_hash)

    def favour(tokens: Tensor, logits: Tensor) -> Tensor:
        green = keyed.greens(windows(tokens, keyed.window), logits, gamma)
        return torch.where(green, logits + delta, logits)

    return TokenRule("kgw", favour)


@claim(
    kgw,
    "Text sampled with the rule is found by its key and by no other, and what that costs grows with delta.",
    cost="cpu:2s",
)
def found_by_its_key_alone() -> Evidence:
    written = trials.write(kgw(key=7), rows=64, length=100)
    right, wrong = (trials.z_scores(written, key=key) for key in (7, 8))
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    moved = {delta: trials.distance(trials.average_over_lists(kgw, p, delta=delta), p) for delta in (0.5, 2.0, 4.0)}
    measured = {"mean z, right key": right.mean(), "mean z, wrong key": wrong.mean()}
    measured |= {f"total variation at delta {delta:g}": tv for delta, tv in moved.items()}
    lossy = 0.001 < moved[0.5] < moved[2.0] < moved[4.0]
    return Evidence(holds=bool((right > 4).all()) and lossy, measured=measured, control=abs(wrong.mean()) < 0.5)
