"""The Z-loss of 2016: classification by the label's standardised score, at a cost that the vocabulary hardly enters."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, Positive, claim, objective
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.lab.features import linear_head, top

_FLOOR = 1e-6  # added to the variance: all scores are equal at initialisation


@objective(
    paper=Paper(
        "The Z-loss: a shift and scale invariant classification loss belonging to the Spherical Family",
        "de Brébisson and Vincent",
        2016,
        arxiv="1604.08859",
    ),
    says="Raise the label's score in standard deviations above the mean score, without a softmax.",
    differs=(
        "1e-6 is added to the variance, so that equal scores give a finite gradient.",
        "The moments come from the head's Gram matrix, made anew for each batch: V D^2 for N positions, D/N of what a "
        "softmax takes. The factored updates of the paper need no such product, but an optimizer must know of them.",
    ),
)
def z_loss(x: Scored, *, threshold: float | None = None, sharpness: Positive = 1.0) -> Tensor:
    r"""Per-token Z-loss. Not the ``lse^2`` regulariser that also goes by this name: that one is ``lse_penalty``.

    .. math:: \ell_t = \frac1a\,\mathrm{softplus}\bigl(a\,(b - z_{y_t})\bigr),\qquad
              z_y = \frac{o_y - \bar o}{\sqrt{\overline{o^2} - \bar o^2}}

    The same for :math:`\alpha o + \beta`, :math:`\alpha > 0`: scores trained by it are ranks, not probabilities. Never
    read a perplexity from them.

    Args:
        x: the trained model, scored so that it can give ``moments()`` [B,T].
        threshold: b, the number of standard deviations asked for. The paper tunes it per data set. V scores allow
            :math:`\sqrt{V - 1}` at most, beyond which the loss never saturates; half of it when left out (our
            judgement).
        sharpness: a; the slope at ``threshold``. Tuned in the paper, 1 here (our judgement).

    Returns:
        [B, T], in standard deviations (not nats), 0 where masked.

    Raises:
        InputError: ``x`` holds log-probabilities only.
    """
    target, mean, square, vocab = x.moments()
    b = 0.5 * (vocab - 1) ** 0.5 if threshold is None else threshold
    variance = (square - mean.square()).clamp_min(0)
    z = (target - mean) * (variance + _FLOOR).rsqrt()
    return torch.where(x.mask, F.softplus(sharpness * (b - z)) / sharpness, 0.0)


@claim(z_loss, "It is blind to a shift and to a rescaling of the scores, and its gradient to both.", cost="cpu:2s")
def shift_and_scale_invariant() -> Evidence:
    g = generator(0, "z_loss")
    scores = torch.randn(20, 1, 30, generator=g, dtype=torch.float64).requires_grad_()
    ids = torch.randint(30, (20, 1), generator=g)

    def at(o: Tensor) -> Scored:
        return Scored.from_logits(o, ids, shift=False)

    def moved(loss: object) -> float:
        return float((loss(at(7 * scores + 3)) - loss(at(scores))).detach().abs().max())  # type: ignore[operator]

    ours = partial(z_loss, threshold=2.5)
    (slope,) = torch.autograd.grad(ours(at(scores)).sum(), scores)
    sums = float(torch.stack([slope.sum(-1), (scores.detach() * slope).sum(-1)]).abs().max())
    found, other = moved(ours), moved(lambda x: -x.logps)
    holds = found < 1e-5 and sums < 1e-5
    measured = {"change under 7 o + 3": found, "largest sum of dL/do and of o dL/do": sums, "change of the nll": other}
    return Evidence(holds, measured, control=other > 0.1)


@claim(z_loss, "A linear classifier of digits ranks as well with it as with cross-entropy (top 3).", cost="cpu:5s")
def ranks_like_cross_entropy() -> Evidence:
    threshold = 0.5 * 9**0.5
    found = top(linear_head(partial(z_loss, threshold=threshold)), 3)
    other = top(linear_head(lambda x: -x.logps), 3)
    wrong = top(linear_head(partial(z_loss, threshold=threshold * -100)), 3)  # asks for nothing: its slope is 0
    measured = {"top-3 accuracy": found, "cross-entropy": other, "threshold of -150 deviations": wrong}
    return Evidence(found > other - 0.02, measured, control=wrong < other - 0.02)
