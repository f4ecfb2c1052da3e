"""Detection of the Gumbel watermarks: the tokens that were picked have numbers near 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from scipy.special import gammaincc
from scipy.stats import gamma as gamma_law
from scipy.stats import kstest

from plumbline.core.declare import Bound, Count, Evidence, Paper, claim, function
from plumbline.decode.watermark import trials
from plumbline.decode.watermark.detection import Detection, scored, verdict
from plumbline.decode.watermark.keys import MILLIONTH_PRIME, Hashed


@function(
    paper=Paper(
        "Watermarking Degrades Alignment in Language Models: Analysis and Mitigation", "Verma et al.", 2025,
        arxiv="2506.04462",
    ),
    says="Exact p-values of the Gumbel watermarks, plain and diverse, for many texts at once.",
    differs=(
        "z divides S - n by sqrt(n), the deviation of a Gamma(n, 1); the paper's code divides by 1.28 sqrt(n), which "
        "is another law's.",
        "A number of 1 is kept 2^-53 below it, so that no token scores infinity.",
    ),
)  # fmt: skip
def detect_gumbel_watermark(
    texts: Any,
    mask: Any = None,
    prompt_lengths: Any = 0,
    *,
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
    r"""Sum of the surprises of the picked tokens' numbers, which is Gamma(n, 1) in text that does not carry the key.

    .. math:: S = \sum_{t} -\log(1 - r_{x_t}), \qquad p = Q(n, S), \qquad z = (S - n) / \sqrt{n}

    with Q the regularised upper incomplete gamma function.

    Args:
        texts: ids [N, T], lists of ids, or strings.
        mask: [N, T], 0 on padding (left or right) of an array.
        prompt_lengths: tokens at the start of each text that nobody sampled, one number or [N]. The first h tokens of
            a text are never scored: their context is not there.
        key, context, self_hash, scheme: as the text was written.
        vocab: width of the model's logits (not the tokenizer's length); own hash does not need it.
        tokenizer: for strings. Tokens of a text that was decoded and tokenized again may differ from those sampled.
        distinct: score each distinct (context, token) once, without which repetitive text scores high by chance.
        min_tokens: fewer scored tokens: undecided. level: largest p-value that counts as watermarked.

    Returns:
        A Detection of N texts; ``figures`` holds S [N] and mean_surprise [N], 1 on average without a watermark.
    """
    keyed = scheme(key=key, context=context, self_hash=self_hash)
    grams, rows, count = scored("detect_gumbel_watermark", texts, mask, prompt_lengths, keyed, tokenizer, distinct)
    r = np.clip(keyed.uniform(grams, vocab).numpy(), 2.0**-53, 1 - 2.0**-53)
    n = np.bincount(rows, minlength=count)
    total = np.bincount(rows, -np.log1p(-r), minlength=count)
    p_value = np.where(n > 0, gammaincc(np.maximum(n, 1), total), np.nan)
    with np.errstate(invalid="ignore"):
        z, mean = (total - n) / np.sqrt(n), total / n
    figures = {"S": total, "mean_surprise": mean}
    return Detection(n, z, p_value, **verdict(n, p_value, min_tokens, level), figures=figures)


@claim(
    detect_gumbel_watermark,
    "Without a watermark S is Gamma(n, 1), so the p-values are exact; counting repeated pairs again, it is not.",
    cost="cpu:3s",
)
def gamma_without_a_watermark() -> Evidence:
    ids = trials.unmarked(2000, 200)
    p_values = {}
    for distinct in (True, False):
        found = detect_gumbel_watermark(ids, key=5, distinct=distinct)
        p_values[distinct] = kstest(gamma_law.cdf(found.figures["S"], found.n), "uniform").pvalue
    measured = {"KS p, distinct pairs": p_values[True], "KS p, all pairs": p_values[False]}
    return Evidence(holds=p_values[True] > 1e-3, measured=measured, control=p_values[False] < 1e-6)
