"""Alignment resampling: of a few watermarked answers keep the one that an outside reward likes best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.watermark import trials
from plumbline.decode.watermark.resampled import Resampled


@function(
    paper=Paper(
        "Watermarking Degrades Alignment in Language Models: Analysis and Mitigation", "Verma et al.", 2025,
        arxiv="2506.04462",
    ),
    says="Win back the alignment that a watermark costs: draw n watermarked answers and keep the reward's favourite.",
    differs=("How answers are drawn and judged is the caller's: two functions, no engine or reward model.",),
)  # fmt: skip
def alignment_resampling(draw: Callable, reward: Callable, *, n: Count = 4) -> Resampled:
    r"""Best of n watermarked samples.

    .. math:: y^* = \arg\max_{i \le n} R(y_i), \qquad
        E[\max_{i \le n} R(y_i)] \ge \mu + \sigma \sqrt{\frac{\log n}{\pi \log 2}} \text{ for } R \sim N(\mu, \sigma^2)

    All candidates carry the key, so the kept one is detected as well as any.

    Args:
        draw: ``draw(i) -> B answers``, one a prompt (texts, id lists or a tensor [B, T]), called for i = 0 .. n - 1.
            They must be able to differ: ``kgw`` or ``diverse_gumbel_watermark`` with sampling on.
        reward: ``reward(B answers) -> [B]``, larger is better.
        n: samples a prompt; the paper finds 2 to 4 enough.

    Returns:
        A Resampled; of equal rewards the first sample is kept.
    """
    samples = [_rows(draw(i)) for i in range(n)]
    if len({len(rows) for rows in samples}) > 1:
        raise refuse("alignment_resampling", "draw", "a function that gives one answer a prompt, each time as many",
                     [len(rows) for rows in samples], "draw for the same prompts at each call")  # fmt: skip
    rewards = np.stack([_rewards(reward(rows), len(rows)) for rows in samples])
    index = rewards.argmax(0)
    best = [samples[i][b] for b, i in enumerate(index.tolist())]
    distinct = np.array([len({_key(rows[b]) for rows in samples}) for b in range(len(best))], np.int64)
    return Resampled(best, index, rewards, samples, distinct)


def _rows(answers: Any) -> list[Any]:
    if isinstance(answers, str) or not isinstance(answers, (Sequence, Tensor, np.ndarray)):
        raise refuse("alignment_resampling", "draw", "a function that gives a list of answers, one a prompt",
                     type(answers).__name__, "wrap a single answer in a list")  # fmt: skip
    return list(answers)


def _rewards(found: Any, count: int) -> NDArray[np.float64]:
    values = np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found, np.float64)
    if values.shape != (count,) or np.isnan(values).any():
        raise refuse("alignment_resampling", "reward", f"a function that gives {count} numbers, none nan",
                     values.tolist(), "give one number an answer")  # fmt: skip
    return values


def _key(answer: Any) -> Any:
    return tuple(np.asarray(answer).ravel().tolist()) if not isinstance(answer, str) else answer


def _expected_maximum(n: int) -> float:
    """E of the largest of n standard normals."""
    return quad(lambda x: n * x * norm.pdf(x) * norm.cdf(x) ** (n - 1), -12, 12, epsabs=1e-12)[0]


@claim(
    alignment_resampling,
    "Best of 4 diverse watermarked samples beats one unmarked sample and stays detectable; exact Gumbel gains nothing.",
    cost="cpu:3s",
)
def reward_is_won_back() -> Evidence:
    from plumbline.decode.watermark import detect_gumbel_watermark, diverse_gumbel_watermark, gumbel_watermark

    worth = torch.linspace(-1, 1, trials.VOCAB)  # what each token adds to an answer's reward

    def reward(answers: list[Tensor]) -> Tensor:
        return torch.stack([worth[ids].mean() for ids in answers])

    def kept(rule: Any) -> Resampled:
        return alignment_resampling(lambda i: trials.write(rule, rows=128, length=60, draw=i), reward, n=4)

    diverse, exact, plain = (kept(rule) for rule in (diverse_gumbel_watermark(), gumbel_watermark(), None))
    found = [detect_gumbel_watermark(torch.stack(ids)).p_value for ids in (diverse.best, diverse.samples[0])]
    after, before = (float(np.median(p)) for p in found)
    gain = {"unmarked, one": plain.rewards[0].mean(), "diverse, best of 4": diverse.rewards.max(0).mean(),
            "exact, gain of 4": float((exact.rewards.max(0) - exact.rewards[0]).max())}  # fmt: skip
    slack = min(_expected_maximum(k) - math.sqrt(math.log(k) / (math.pi * math.log(2))) for k in (2, 4, 8, 16))
    holds = gain["diverse, best of 4"] > gain["unmarked, one"] and abs(math.log10(after / before)) < 1 and slack > -1e-9
    measured = gain | {"median p-value, kept": after, "median p-value, one": before, "smallest slack of bound": slack}
    return Evidence(holds=bool(holds), measured=measured, control=gain["exact, gain of 4"] == 0.0)
