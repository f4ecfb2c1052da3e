"""Self-consistency: the answer that most sampled reasoning paths agree on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from plumbline.core.declare import Evidence, Paper, claim, selector
from plumbline.decode.samples import Samples, Selection
from plumbline.decode.search.votes import elect
from plumbline.kernels.seeds import rng


@selector(
    paper=Paper(
        "Self-Consistency Improves Chain of Thought Reasoning in Language Models",
        "Wang et al.",
        2022,
        arxiv="2203.11171",
    ),
    says="Choose the answer that most samples agree on.",
    differs=(
        "Samples without an answer cast no vote, and confidences are shares of those that did.",
        "The paper's probability-weighted votes are rpc (with prune=False); it found them no better than plain ones.",
    ),
)
def self_consistency(samples: Samples, *, equal: Callable | None = None) -> Selection:
    r"""Majority vote over the answers of n sampled paths.

    .. math:: \hat a = \arg\max_a \sum_{i=1}^n 1[y_i = a], \qquad \mathrm{conf}(a) = \#\{i : y_i = a\} / n

    Args:
        samples: n samples of one prompt, answers [n]; nothing else of them is read.
        equal: ``(answer, answer) -> bool``, where ``==`` is too strict; closed transitively.

    Returns:
        The winner, the first sample that gave it (ties: the answer that came first), and every answer's share.
    """
    return elect(samples, np.ones(len(samples)), equal)


@claim(
    self_consistency,
    "Voting over sampled paths beats a single path when wrong paths scatter over many answers, and the more paths the "
    "better; where wrong paths agree with each other it does not help.",
    cost="cpu:2s",
)
def votes_beat_a_single_path() -> Evidence:
    def accuracy(n: int, wrong: int) -> float:
        """Of 300 problems with 40% right paths, the other paths spread evenly over ``wrong`` answers."""
        random, hits = rng(0, "self_consistency", n, wrong), 0
        for _ in range(300):
            said = np.where(random.random(n) < 0.4, 0, random.integers(1, wrong + 1, n)).tolist()
            hits += self_consistency(Samples(tuple(f"path {i}" for i in range(n)), (), tuple(said))).answer == 0
        return hits / 300

    scattered = {n: accuracy(n, wrong=6) for n in (1, 5, 40)}
    agreed = accuracy(40, wrong=1)
    return Evidence(
        holds=scattered[1] + 0.1 < scattered[5] and scattered[5] + 0.1 < scattered[40],
        measured={**{f"scattered_{n}": a for n, a in scattered.items()}, "agreed_40": agreed},
        control=agreed < scattered[1],
    )
