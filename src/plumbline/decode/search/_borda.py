"""Borda voting: answers are voted for with the ranks that self-certainty gives their samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from plumbline.core.declare import Evidence, NonNegative, Paper, claim, selector
from plumbline.decode.samples import Samples, Selection
from plumbline.decode.search.votes import elect
from plumbline.kernels.seeds import rng


@selector(
    paper=Paper(
        "Scalable Best-of-N Selection for Large Language Models via Self-Certainty",
        "Kang et al.",
        2025,
        arxiv="2502.18581",
    ),
    says="Vote with samples ranked by self-certainty: the surer a sample, the more its answer counts.",
    differs=(
        "A sample without an answer keeps its rank and casts no vote, as in the official code.",
        "Equal certainties take the mean of their votes: the official code ranks them by position, so that the order "
        "of equal samples would decide.",
    ),
)
def borda(samples: Samples, *, p: NonNegative = 0.5, equal: Callable | None = None) -> Selection:
    r"""Votes of n samples by the rank of their self-certainty.

    .. math:: v_i = (n - r_i + 1)^p, \qquad \hat a = \arg\max_a \sum_{i : y_i = a} v_i

    with :math:`r_i = 1` for the surest. p = 0 is the majority vote, a large p the answer of the surest sample. The
    paper raises p with n, from about 0.3 at 8 samples to 1.2 at 64.

    Args:
        samples: n samples of one prompt, answers [n] and self_certainty [n].
        p: how much rank counts. equal: ``(answer, answer) -> bool``, where ``==`` is too strict.

    Returns:
        The winner with its surest sample (ties: the answer that came first), and every answer's share of the votes.
    """
    sure = samples.known("self_certainty", "borda")
    below, upto = (np.searchsorted(np.sort(sure), sure, side) for side in ("left", "right"))
    sums = np.append(0.0, np.cumsum((np.arange(1, len(sure) + 1) / len(sure)) ** p))  # scaled: shares are the same
    return elect(samples, (sums[upto] - sums[below]) / (upto - below), equal)


@claim(
    borda,
    "Voting by rank of self-certainty beats the majority vote where certainty goes with being right, by more the more "
    "samples there are; with the ranks turned round it is worse than the majority.",
    cost="cpu:5s",
)
def ranks_beat_the_majority() -> Evidence:
    sizes, problems = (4, 16, 64), 2000
    hits: dict[str, float] = {}
    random = rng(0, "borda")
    ease = random.normal(-0.6, 0.8, problems)
    for n in sizes:
        counted = np.zeros(4)
        for centre in ease:
            said, sure = _simulated(random, centre, n)
            votes = [(0.5, sure), (0.0, sure), (0.5, -sure)]
            texts = tuple(map(str, range(n)))
            chosen = [borda(Samples(texts, (), said, self_certainty=s), p=p).answer for p, s in votes]
            counted += [answer == 0 for answer in (*chosen, said[0])]
        names = ("borda", "majority", "reversed", "single")
        hits |= {f"{name}_{n}": float(c) / problems for name, c in zip(names, counted, strict=True)}
    gaps = [hits[f"borda_{n}"] - hits[f"majority_{n}"] for n in sizes]
    return Evidence(
        holds=min(gaps) > 0 and gaps[0] < gaps[2] and all(hits[f"borda_{n}"] > hits[f"single_{n}"] for n in sizes),
        measured=hits,
        control=all(hits[f"reversed_{n}"] < hits[f"majority_{n}"] for n in sizes[1:]),
    )


def _simulated(random: np.random.Generator, centre: float, n: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Answers (0 is right, one wrong answer is common) and certainties that correlate with being right at 0.5."""
    right = random.random(n) < 1 / (1 + np.exp(-centre))
    wrong = np.where(random.random(n) < 0.7, 1, random.integers(2, 5, n))
    sure = 1.15 * (right - 0.5) + random.standard_normal(n)
    return tuple(np.where(right, 0, wrong).tolist()), sure
