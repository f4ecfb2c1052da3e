"""Reasoning-pruning perplexity consistency: vote with path probabilities, after dropping implausible paths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from plumbline.core.declare import Evidence, Paper, claim, selector
from plumbline.decode.samples import Floats, Samples, Selection
from plumbline.decode.search.pruning import prune as pruning
from plumbline.decode.search.votes import elect
from plumbline.kernels.seeds import rng


@selector(
    paper=Paper(
        "Bridging Internal Probability and Self-Consistency for Effective and Efficient LLM Reasoning",
        "Zhou et al.",
        2025,
        arxiv="2502.00511",
    ),
    says="Vote with the model's own probability of each distinct path, after dropping paths that are too unlikely.",
    differs=(
        "Paths without an answer are left out before the mixture is fitted: with them the fit could drop every path "
        "that has one.",
        "The likelihood is summed in logarithms: the official code's densities underflow and its fit stops there.",
        "per_token=False uses the path probabilities of the paper's theory, scaled to a maximum of 1 so that the "
        "mixture's bounds fit; the official code's per-token means are the default.",
        "Nothing is pruned among fewer than 8 paths, or equal ones, or where the fit fails; the paper does not say.",
    ),
)
def rpc(
    samples: Samples, *, prune: bool = True, per_token: bool = True, equal: Callable | None = None
) -> Selection:  # fmt: skip
    r"""Perplexity consistency over the paths that pruning keeps.

    .. math:: \hat p_i = \exp\Bigl(\frac1{T_i}\sum_t \log p(y_{it} \mid y_{i,<t})\Bigr), \qquad
        \mathrm{conf}(a) \propto \sum_{t \in \{\text{distinct kept texts with answer } a\}} \hat p_t

    A path is dropped when a mixture of two Weibull distributions, fitted to the n numbers, gives it to the lower
    component and it lies below their mean. A text that was sampled several times counts once.

    Args:
        samples: n samples of one prompt: texts, answers, logps and lengths [n]. The paper draws 64 to 128.
        prune: drop implausible paths; False is the paper's PC. per_token: length-normalised probabilities (above), or
            those of whole paths. equal: ``(answer, answer) -> bool``, where ``==`` is too strict.

    Returns:
        The winner with its most probable path, and every answer's share of the kept probability.

    Raises:
        InputError: the samples have no logps, or no lengths.
    """
    logs = samples.mean_logps("rpc") if per_token else samples.known("logps", "rpc")
    answered = np.array([a is not None for a in samples.answers])
    if not answered.any():
        return Selection(None, None, {})
    p = np.exp(logs if per_token else logs - logs[answered].max()).clip(min=np.finfo(float).tiny)
    weights = np.where(answered, p, 0.0)
    if prune:
        weights[answered] *= pruning(p[answered]).kept
    return elect(samples, np.where(_first(samples, weights > 0), weights, 0.0), equal)


def _first(samples: Samples, kept: np.ndarray) -> np.ndarray:
    """Whether each kept text [n] is the first of its kind."""
    seen: dict[str, int] = {}
    for i, text in enumerate(samples.texts):
        if kept[i]:
            seen.setdefault(text, i)
    first = np.zeros(len(samples), bool)
    first[list(seen.values())] = True
    return first


@claim(
    rpc,
    "Where wrong answers come with many implausible paths, voting by probability with pruning is at least as accurate "
    "as the majority and as the single likeliest path; without pruning it is not.",
    cost="cpu:20s",
)
def pruning_restores_the_answer() -> Evidence:
    problems, hits = 200, np.zeros(4)
    for i in range(problems):
        samples = _planted(rng(0, "rpc", i))
        by_path = samples.answers[int(samples.mean_logps("rpc").argmax())]
        votes = rpc(samples, prune=False), elect(samples, np.ones(len(samples)))
        hits += [a == 0 for a in (rpc(samples).answer, by_path, *(v.answer for v in votes))]
    names = ("rpc", "likeliest_path", "without_pruning", "majority")
    measured = dict(zip(names, hits / problems, strict=True))
    return Evidence(
        holds=measured["rpc"] >= max(measured["majority"], measured["likeliest_path"]) - 0.02,
        measured=measured,
        control=measured["without_pruning"] < measured["rpc"] - 0.2,
    )


def _planted(random: np.random.Generator, n: int = 64) -> Samples:
    """A third of the paths is plausible, three in four of those right; the others nearly agree on a wrong answer."""
    plausible = random.random(n) < 0.33
    right = np.where(plausible, random.random(n) < 0.75, random.random(n) < 0.1)
    p = np.where(plausible, random.beta(60, 12, n), random.beta(20, 30, n))
    lengths = random.integers(20, 60, n)
    answers = np.where(right, 0, np.where(random.random(n) < 0.8, 1, 2)).tolist()
    logps: Floats = np.log(p) * lengths
    return Samples(tuple(f"path {i}" for i in range(n)), (), tuple(answers), logps, lengths)
