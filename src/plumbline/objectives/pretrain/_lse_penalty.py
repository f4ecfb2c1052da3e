"""The lse^2 penalty: keeps the softmax's normaliser near 1, which cross-entropy leaves free to drift."""

from __future__ import annotations

from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, claim, objective
from plumbline.core.scored import Scored
from plumbline.lab.features import images, linear_head, top


@objective(
    paper=None,
    says="Pull the logsumexp of the scores to 0, so that logits do not drift where cross-entropy cannot see it.",
    differs=(
        "A standard regulariser without a paper of its own, known as the auxiliary z-loss from the Mesh TensorFlow and "
        "PaLM code (coefficient 1e-4 there); it has nothing in common with the Z-loss of 2016 (z_loss).",
        "The logsumexp is the label's raw score less its log-probability, so one pass over the vocabulary serves both.",
    ),
)
def lse_penalty(x: Scored, *, coefficient: NonNegative = 1e-4) -> Tensor:
    r"""Per-token penalty; add it to a likelihood loss.

    .. math:: \ell_t = c\,\Bigl(\log\sum_v e^{o_{tv}}\Bigr)^2,\qquad \log\sum_v e^{o_{tv}} = o_{t y_t} - \log\pi(y_t)

    Args:
        x: the trained model, scored over its whole vocabulary (over a kept support the difference above is not a
            logsumexp of the scores), with ``moments()`` [B, T] at hand. Scores are divided by the temperature.
        coefficient: c.

    Returns:
        [B, T] in squared nats, 0 where masked.

    Raises:
        InputError: ``x`` holds log-probabilities only.
    """
    return coefficient * (x.moments().target - x.logps).square()


@claim(
    lse_penalty,
    "Cross-entropy never corrects a common shift of all scores; the penalty does, and costs no accuracy.",
    cost="cpu:5s",
)
def corrects_the_drift() -> Evidence:
    def remaining(coefficient: float) -> tuple[float, float]:
        head = linear_head(lambda x: -x.logps + lse_penalty(x, coefficient=coefficient), start=8.0)
        return float(head(images().test_x).logsumexp(-1).mean()), top(head, 1)

    (ours, right), (free, other) = remaining(0.1), remaining(0.0)
    measured = {"mean logsumexp": ours, "accuracy": right, "mean logsumexp without it": free, "accuracy without": other}
    return Evidence(abs(ours) < 1 and right > other - 0.02, measured, control=free > 8)
