"""Best-of-n: the sample that a reward likes best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from plumbline.core.declare import Evidence, Paper, claim, selector
from plumbline.core.errors import refuse
from plumbline.decode.samples import Floats, Samples, Selection
from plumbline.decode.search.votes import elect
from plumbline.kernels.seeds import rng


@selector(
    paper=Paper("Learning to summarize from human feedback", "Stiennon et al.", 2020, arxiv="2009.01325"),
    says="Choose the sample with the highest reward.",
    differs=(
        "Without a reward the sequence log-probability is used, the self-reward of the sharpening papers; the paper's "
        "own reward is a model trained on human preferences, which is the caller's to pass.",
        "A sample without an answer is passed over while another has one; where answers do not matter, draw with "
        "answer=str.strip.",
        "The confidence reported is each answer's share of the samples: a reward has no scale to make shares of.",
    ),
)
def best_of_n(samples: Samples, *, reward: Callable | None = None) -> Selection:
    r"""The sample of the highest reward among n.

    .. math:: \hat\imath = \arg\max_{i \le n} r(x, y_i), \qquad
        \mathrm{KL}(\pi_n \| \pi) \le \log n - \tfrac{n - 1}{n}

    Args:
        samples: n samples of one prompt.
        reward: ``(prompt, n texts) -> [n]`` numbers, larger is better. None: ``samples.rewards`` [n] where the
            samples have them, else ``samples.logps`` [n].

    Returns:
        The first sample of the highest reward, its answer, and each answer's share of the samples.

    Raises:
        InputError: rewards of another shape or not finite; no reward, no rewards and no logps.
    """
    values = _rewards(samples, reward)
    answered = np.array([a is not None for a in samples.answers])
    allowed = answered if answered.any() else ~answered
    index = int(np.where(allowed, values, -np.inf).argmax())
    return Selection(index, samples.answers[index], elect(samples, np.ones(len(samples))).confidence)


def _rewards(samples: Samples, reward: Callable | None) -> Floats:
    if reward is None:
        return samples.known("logps", "best_of_n") if samples.rewards is None else samples.rewards
    values = np.asarray(reward(samples.prompt, samples.texts), np.float64)
    if values.shape != (len(samples),) or not np.isfinite(values).all():
        shown = values.shape if values.shape != (len(samples),) else values.tolist()
        raise refuse("best_of_n", "reward", f"to give {len(samples)} finite numbers", shown, "return one a text")
    return values


@claim(
    best_of_n,
    "Under a faithful reward more samples are always better; under a noisy one that some bad samples exploit, more "
    "samples end up worse than few (over-optimisation).",
    cost="cpu:2s",
)
def more_samples_need_a_faithful_reward() -> Evidence:
    def quality(n: int, exploits: float) -> float:
        """Mean true quality of the choice over 400 prompts; a share of the samples is bad, and rewarded for it."""
        random, total = rng(0, "best_of_n", n), 0.0
        for _ in range(400):
            true, cheats = random.standard_normal(n), random.random(n) < exploits
            true = np.where(cheats, true - 3, true)
            seen = np.where(cheats, true + 7, true)
            names = tuple(map(str, range(n)))
            chosen = best_of_n(Samples(names, (), names, rewards=seen)).index
            total += float(true[chosen or 0])
        return total / 400

    faithful, hacked = ({n: quality(n, share) for n in (1, 4, 64)} for share in (0.0, 0.02))
    measured = {f"faithful_{n}": q for n, q in faithful.items()} | {f"hacked_{n}": q for n, q in hacked.items()}
    rises = faithful[1] + 0.5 < faithful[4] and faithful[4] + 0.5 < faithful[64]
    return Evidence(holds=rises and hacked[64] < hacked[4], measured=measured, control=hacked[64] < faithful[64] - 1)
