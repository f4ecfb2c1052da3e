"""Detection of the green-list watermark: count green tokens, compare with chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from scipy.special import betainc, erfc
from scipy.stats import kstest

from plumbline.core.declare import Bound, Count, Evidence, Paper, claim, function
from plumbline.decode.watermark import trials
from plumbline.decode.watermark.detection import Detection, scored, verdict
from plumbline.decode.watermark.keys import MILLIONTH_PRIME, Hashed
from plumbline.kernels.seeds import rng


@function(
    paper=Paper(
        "Watermarking Degrades Alignment in Language Models: Analysis and Mitigation", "Verma et al.", 2025,
        arxiv="2506.04462",
    ),
    says="z-scores and p-values of the green-list watermark for many texts at once.",
    differs=(
        "With scheme=TransformersGreens, distinct=False the z-scores equal those of transformers' WatermarkDetector "
        "(and its ignore_repeated_ngrams with distinct=True); it drops a leading bos token that all texts share, here "
        "the caller does.",
        "p_value is the normal tail of z as in the paper; the verdict follows the exact binomial tail, since at 16 "
        "tokens and z = 4 the normal's is nine times too small. level is the normal tail of the paper's z = 4.",
        "Own hash with self_hash counts a pair once per number, not once per n-gram: n-grams that share their smallest "
        "hash carry the same bit.",
    ),
)  # fmt: skip
def detect_kgw(
    texts: Any,
    mask: Any = None,
    prompt_lengths: Any = 0,
    *,
    gamma: Annotated[float, Bound(gt=0, lt=1)] = 0.25,
    key: int = MILLIONTH_PRIME,
    context: Count = 1,
    self_hash: bool = False,
    scheme: Callable = Hashed,
    vocab: Count | None = None,
    tokenizer: Callable | None = None,
    distinct: bool = True,
    min_tokens: Count = 16,
    level: Annotated[float, Bound(gt=0, lt=1)] = 3.2e-5,
) -> Detection:
    r"""Standard score of the number of green tokens.

    .. math:: z = \frac{g - \gamma n}{\sqrt{n\,\gamma\,(1 - \gamma)}}, \qquad p = P(N(0, 1) \ge z)

    Args:
        texts: ids [N, T], lists of ids, or strings.
        mask: [N, T], 0 on padding (left or right) of an array.
        prompt_lengths: tokens at the start of each text that nobody sampled, one number or [N]. The first h tokens of
            a text are never scored: their context is not there.
        gamma, key, context, self_hash, scheme: as the text was written.
        vocab: width of the model's logits (not the tokenizer's length); own hash does not need it.
        tokenizer: for strings. Tokens of a text that was decoded and tokenized again may differ from those sampled.
        distinct: score each distinct (context, token) once, without which repetitive text scores high by chance.
        min_tokens: fewer scored tokens: undecided. level: largest exact p-value that counts as watermarked.

    Returns:
        A Detection of N texts; ``figures`` holds green [N], green_fraction [N] and exact_p_value [N].
    """
    keyed = scheme(key=key, context=context, self_hash=self_hash)
    grams, rows, count = scored("detect_kgw", texts, mask, prompt_lengths, keyed, tokenizer, distinct)
    colours = keyed.green(grams, gamma, vocab).numpy()
    n = np.bincount(rows, minlength=count)
    green = np.bincount(rows[colours], minlength=count)
    with np.errstate(invalid="ignore"):
        z = (green - gamma * n) / np.sqrt(n * gamma * (1 - gamma))
        share = green / n
    exact = np.where(green > 0, betainc(np.maximum(green, 1), n - green + 1, gamma), 1.0)
    figures = {"green": green, "green_fraction": share, "exact_p_value": np.where(n > 0, exact, np.nan)}
    return Detection(n, z, 0.5 * erfc(z / np.sqrt(2)), **verdict(n, exact, min_tokens, level), figures=figures)


@claim(
    detect_kgw,
    "Without a watermark z is standard normal; counting repeated pairs again, it is not.",
    cost="cpu:3s",
)
def standard_normal_without_a_watermark() -> Evidence:
    ids = trials.unmarked(2000, 200)
    p_values = {}
    for distinct in (True, False):
        found = detect_kgw(ids, key=5, distinct=distinct)
        # z steps by whole tokens: a uniform half step makes the binomial continuous
        step = 1 / np.sqrt(found.n * 0.25 * 0.75)
        p_values[distinct] = kstest(found.z + step * (rng(0, "step").random(2000) - 0.5), "norm").pvalue
    measured = {"KS p, distinct pairs": p_values[True], "KS p, all pairs": p_values[False]}
    return Evidence(holds=p_values[True] > 1e-3, measured=measured, control=p_values[False] < 1e-6)
