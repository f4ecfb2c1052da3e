"""Sequence-level masked importance sampling: an answer whose ratio of trainer to engine leaves the band is dropped."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Positive, claim, function
from plumbline.core.scored import Scored
from plumbline.lab.mismatch import gradient_cosine, no_weights
from plumbline.objectives.rl._sequence_truncate import sequence_truncate
from plumbline.objectives.rl.correction import band, sequence, weigh


@function(
    paper=None,
    says="Engine-mismatch weights by whole answer that drop the answers on which trainer and engine disagree most.",
    differs=(
        "Standard practice without a paper of its own: TRL's default, sequence_mask with an upper bound of 3.",
        "A token for which the engine gave no finite number counts as ratio 1, as in TRL, and is counted.",
        "The sum of log-ratios stays within 20 nats before exp, as in verl.",
    ),
)
def sequence_mask(
    x_old: Scored, x_sampler: Scored, *, upper: Positive | None = 3.0, lower: NonNegative | None = None,
    veto: Positive | None = None, normalised: bool = False,
) -> Tensor:  # fmt: skip
    r"""Masked weight of every answer.

    .. math:: W = w\,1[lower \le w \le upper],\qquad w = \prod_t \frac{\pi_{old}(y_t)}{\mu(y_t)}

    A fixed band on a product turns long answers away first; it warns where that is seen. The loss still divides by
    all rows, so dropping some shortens the step: the share is noted as ``mismatch_changed_rows``.

    Args:
        x_old: the policy at rollout time by the trainer's own forward, logps [B,T]. x_sampler: the engine's, [B,T].
        upper, lower: the band, its ends inside; None leaves a side open.
        veto: a row with any token's ratio below this weighs 0. normalised: divide by the mean weight of the batch.

    Returns:
        [B,1] without a gradient; 0 for a row without a scored token.

    Raises:
        InputError: no engine log-probabilities, other shapes, no bound at all, bounds in the wrong order.
    """
    low, high = band("sequence_mask", lower, upper)
    return weigh("sequence_mask", x_old, x_sampler, sequence, lambda w: torch.where((w >= low) & (w <= high), w, 0.0),
                 veto=veto, normalised=normalised)  # fmt: skip


@claim(
    sequence_mask,
    "Where the engine reports 2% of its tokens wrong by 5 nats the masked gradient stays nearer to the on-policy one"
    " than no weights; unbounded ratios of whole answers are ruined.",
    cost="cpu:8s",
)
def faults_are_left_out() -> Evidence:
    every = partial(sequence_truncate, upper=math.inf, lower=1e-9)
    found = {
        name: gradient_cosine(weights, noise=0.1, faults=0.02)
        for name, weights in (("none", no_weights), ("masked", sequence_mask), ("unbounded", every))
    }
    return Evidence(found["masked"] > found["none"], found, control=found["unbounded"] < 0.7)
