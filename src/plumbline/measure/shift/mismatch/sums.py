"""What is counted of the log-ratios of a file of rollouts: sums per prompt, the worst tokens, signs of known faults."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from plumbline.kernels.stats import Estimate, cluster_bootstrap, cluster_mean, cluster_sums
from plumbline.measure.shift.mismatch.rows import Rollout
from plumbline.measure.totals import Distribution, Floats, ItemSums

CLAMP = 20.0  # of a log-ratio before exp
SHIFTS = (-1, 0, 1)


@dataclass
class Ratios:
    r"""Sums over tokens and over answers of :math:`l = \log\pi - \log\mu`, trainer minus engine.

    ``tokens`` and ``answers`` sum per prompt (the cluster of every interval); ``gap`` [R], ``length`` [R] and
    ``prompt`` [R] are of the answers; ``worst`` holds (\|l\|, row, position) of the largest.
    """

    keep: int
    tokens: ItemSums = field(default_factory=ItemSums)
    answers: ItemSums = field(default_factory=ItemSums)
    spread: Distribution = field(default_factory=Distribution)
    worst: list[tuple[float, int, int]] = field(default_factory=list)
    gap: Floats = field(default_factory=lambda: np.zeros(0))
    length: Floats = field(default_factory=lambda: np.zeros(0))
    prompt: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    unknown: int = 0  # tokens without a number of the engine's
    broken: int = 0  # tokens without a finite number of the trainer's
    below: int = 0  # tokens that the trainer finds no likelier than the engine does
    shifted: Floats = field(default_factory=lambda: np.zeros((len(SHIFTS), 6)))

    @property
    def n(self) -> int:
        return int(self.tokens.total("n"))

    def add(self, number: int, prompt: int, trainer: Floats, engine: Floats, counted: NDArray[np.bool_]) -> float:
        """One answer's log-probabilities [C]; returns the sum of its log-ratios."""
        known, fine = np.isfinite(engine) & counted, np.isfinite(trainer)
        self.unknown += int((counted & ~np.isfinite(engine)).sum())
        self.broken += int((known & ~fine).sum())
        at = np.flatnonzero(known & fine)
        gap = trainer[at] - engine[at]
        w = np.exp(np.clip(gap, -CLAMP, CLAMP))
        self.tokens.add(np.full(len(at), prompt), gap=gap, abs=np.abs(gap), w=w, w2=w * w,
                        k3=np.expm1(np.clip(gap, -CLAMP, CLAMP)) - gap, outside=(w < 0.9) | (w > 1.1))  # fmt: skip
        self.spread.add(gap)
        self.below += int((gap <= 0.005).sum())
        for k in np.argsort(-np.abs(gap), kind="stable")[: self.keep]:
            heapq.heappush(self.worst, (float(abs(gap[k])), number, int(at[k])))
            if len(self.worst) > self.keep:
                heapq.heappop(self.worst)
        self._shift(trainer, engine, known & fine)
        return float(gap.sum())

    def _shift(self, trainer: Floats, engine: Floats, known: NDArray[np.bool_]) -> None:
        """Sums for the correlation of the engine's numbers with the trainer's one token before, at and after."""
        inner = np.flatnonzero(known[1:-1]) + 1 if len(known) > 2 else np.zeros(0, np.int64)
        for number, shift in enumerate(SHIFTS):
            fine = inner[np.isfinite(trainer[inner + shift])]
            x, y = engine[fine], trainer[fine + shift]
            self.shifted[number] += [len(fine), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]

    def finish(self, gap: Floats, length: Floats, prompt: NDArray[np.int64]) -> None:
        """The answers, all at once: sums of log-ratios, lengths and prompts, [R] each."""
        self.gap, self.length, self.prompt = gap, length, prompt
        w = np.exp(np.clip(gap, -CLAMP, CLAMP))
        self.answers.add(prompt, w=w, w2=w * w)

    def shift_correlations(self) -> dict[int, float]:
        """Shift -> correlation of the engine's number at t with the trainer's at t + shift."""
        found = {}
        for shift, (n, x, y, xx, yy, xy) in zip(SHIFTS, self.shifted, strict=True):
            spread = np.sqrt(max(n * xx - x * x, 0.0) * max(n * yy - y * y, 0.0))
            found[shift] = float((n * xy - x * y) / spread) if spread > 0 else 0.0
        return found


def gather(rollouts: Sequence[Rollout], trainer: Sequence[NDArray[np.float32]], *, worst: int) -> Ratios:
    """Every rollout counted; prompts of equal ids are one cluster."""
    prompts: dict[bytes, int] = {}
    found, gaps, lengths, clusters = Ratios(worst), [], [], []
    for number, (row, logps) in enumerate(zip(rollouts, trainer, strict=True)):
        prompt = prompts.setdefault(row.prompt.tobytes(), len(prompts))
        gaps.append(found.add(number, prompt, logps.astype(np.float64), row.sampler.astype(np.float64), row.counted))
        lengths.append(float(row.counted.sum()))
        clusters.append(prompt)
    found.finish(np.array(gaps), np.array(lengths), np.array(clusters, np.int64))
    return found


def moment(sums: ItemSums, statistic: Callable[[Floats], Floats], seed: int) -> Estimate:
    """A statistic of (n, sum of w, sum of w^2), with an interval over prompts."""
    columns = sums.of("n", "w", "w2")
    return cluster_bootstrap(columns[columns[:, 0] > 0], statistic, n_items=int(sums.total("n")), seed=seed)


def chi_square(s: Floats) -> Floats:
    r""":math:`\overline{w^2} - 1`."""
    return np.asarray(s[..., 2] / s[..., 0] - 1)


def effective(s: Floats) -> Floats:
    r"""Effective sample size as a share, :math:`\bar w^2 / \overline{w^2}`."""
    return np.asarray(s[..., 1] ** 2 / (s[..., 0] * s[..., 2]))


def outside_band(found: Ratios, upper: float, seed: int) -> tuple[NDArray[np.bool_], Estimate]:
    """Which answers' ratios lie outside [1/upper, upper], and their share."""
    out = np.abs(found.gap) > np.log(upper)
    return out, cluster_mean(out, found.prompt, seed=seed)


def length_correlation(out: NDArray[np.bool_], found: Ratios, seed: int) -> Estimate | None:
    """Spearman's correlation of being outside with length, None where all or none are, or all are equally long.

    The interval resamples prompts and keeps the ranks of the whole file.
    """
    if out.all() or not out.any() or (found.length == found.length[0]).all():
        return None
    a, b = rankdata(out), rankdata(found.length)
    _, sums = cluster_sums(found.prompt, np.ones(len(a)), a, b, a * a, b * b, a * b)

    def statistic(s: Floats) -> Floats:
        m = s[..., 1:] / s[..., :1]
        spread = np.sqrt((m[..., 2] - m[..., 0] ** 2) * (m[..., 3] - m[..., 1] ** 2))
        return np.asarray((m[..., 4] - m[..., 0] * m[..., 1]) / spread)

    return cluster_bootstrap(sums, statistic, n_items=len(a), seed=seed)
