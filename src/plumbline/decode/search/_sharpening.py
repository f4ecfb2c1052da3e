"""Sharpening: self-improvement as moving probability to the answers that a model already thinks likeliest."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.declare import Count, Evidence, Paper, Positive, Probability, claim, function
from plumbline.decode.samples import Floats
from plumbline.decode.search import sharpen
from plumbline.kernels.seeds import rng


@function(
    paper=Paper(
        "Self-Improvement in Language Models: The Sharpening Mechanism", "Huang et al.", 2024, arxiv="2412.01951"
    ),
    says="Predict what best-of-n and tilting do to a model's distribution over whole answers.",
    differs=(
        "Exact distributions over listed answers where the paper bounds the samples needed; models are sharpened with "
        "draw and best_of_n, and trained on sharpen.sft_pairs.",
        "Answers that tie share their chance in proportion to pi; the paper picks any.",
    ),
)
def sharpening(
    pi: ArrayLike, reward: ArrayLike | None = None, *, n: Count = 50, beta: Positive = 0.1, eps: Probability = 0.05,
    delta: Probability = 0.05,
) -> sharpen.Sharpening:  # fmt: skip
    r"""Best-of-n and tilted distributions of pi, its coverage, and whether they are sharpened.

    .. math:: \pi_n(Y^*) = 1 - (1 - \pi(Y^*))^n, \qquad \pi_\beta \propto \pi^{1 + 1/\beta}, \qquad
        C = E_x[1 / \pi(Y^*(x) \mid x)]

    :math:`Y^*(x) = \arg\max_y \pi(y \mid x)`; n near :math:`C \log(1/\delta)` draws find it. A distribution is
    (eps, delta)-sharpened when it gives Y* at least 1 - delta on at least 1 - eps of the prompts.

    Args:
        pi: [X, Y] probabilities of whole answers to X prompts, at temperature 1, before any truncation; or [Y].
        reward: [X, Y] or [Y], what best-of-n maximises; pi itself (the self-reward log pi) when left out.
        n: draws. beta: weight of the divergence from pi in the tilted solution. eps, delta: as above.

    Returns:
        ``coverage``, ``needed`` [X], ``best_of_n`` [X, Y], ``tilted`` [X, Y], ``mode_mass`` and ``sharpened``.

    Raises:
        InputError: rows that are not distributions.
    """
    p = np.atleast_2d(sharpen.distribution("sharpening", pi))
    made = {"pi": p, "best_of_n": sharpen.best_of_n_distribution(p, n, reward), "tilted": sharpen.tilted(p, beta)}
    return sharpen.Sharpening(
        sharpen.coverage(p), sharpen.samples_needed(p, delta), made["best_of_n"], made["tilted"],
        {name: np.where(sharpen.modes(p), q, 0).sum(-1) for name, q in made.items()},
        {name: sharpen.sharpened(q, p, eps=eps, delta=delta) for name, q in made.items()},
    )  # fmt: skip


@claim(
    sharpening,
    "Where the likeliest answer begins with an unlikely token, greedy decoding and a low token temperature miss it; "
    "best-of-n with n near coverage times log(1/delta), and tilting whole answers, find it.",
    cost="cpu:2s",
)
def whole_answers_are_sharpened_where_tokens_are_not() -> Evidence:
    # a garden path: token 0 is likelier, and leads to eight answers alike; token 1 leads to one
    first, second = np.array([0.7, 0.3]), np.vstack([np.full(8, 1 / 8), np.eye(8)[0]])
    pi = (first[:, None] * second).ravel()
    needed = int(sharpening(pi, delta=0.05).needed[0])
    found = sharpening(pi, n=needed, beta=0.25)
    cold = _colder(first, 5.0)[:, None] * np.array([_colder(row, 5.0) for row in second])
    both = found.tilted[0] > 0
    kl = float((found.tilted[0][both] * np.log(found.tilted[0][both] / cold.ravel()[both])).sum())
    draws = rng(0, "sharpening").choice(len(pi), size=(4000, needed), p=pi)
    hit = float((pi[draws].max(-1) == pi.max()).mean())
    measured = {
        "coverage": found.coverage, "n": needed, "best_of_n": float(found.mode_mass["best_of_n"][0]), "drawn": hit,
        "tilted": float(found.mode_mass["tilted"][0]), "token_temperature": float(cold[1, 0]), "kl_tilted_cold": kl,
    }  # fmt: skip
    holds = found.sharpened["best_of_n"] and found.sharpened["tilted"] and abs(hit - measured["best_of_n"]) < 0.02
    greedy = (int(first.argmax()), int(second[first.argmax()].argmax()))
    missed = pi.reshape(2, 8)[greedy] < pi.max() and cold[1, 0] < 0.05
    return Evidence(holds=holds and kl > 0, measured=measured, control=missed)


def _colder(p: Floats, power: float) -> Floats:
    return p**power / (p**power).sum()
