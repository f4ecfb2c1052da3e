"""Token-level masked importance sampling: a token whose ratio of trainer to engine leaves the band does not count."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Positive, claim, function
from plumbline.core.scored import Scored
from plumbline.lab.mismatch import gradient_cosine, no_weights
from plumbline.objectives.rl._token_truncate import token_truncate
from plumbline.objectives.rl.correction import band, token, weigh


@function(
    paper=None,
    says="Engine-mismatch weights by token that drop, rather than bound, the tokens on which the two disagree most.",
    differs=(
        "Standard practice without a paper of its own: TRL's token_mask.",
        "The bound of 2 is verl's for tokens; TRL's is 3 at either level.",
        "A token for which the engine gave no finite number weighs 1, as in TRL, and is counted.",
    ),
)
def token_mask(
    x_old: Scored, x_sampler: Scored, *, upper: Positive | None = 2.0, lower: NonNegative | None = None,
    veto: Positive | None = None, normalised: bool = False,
) -> Tensor:  # fmt: skip
    r"""Masked weight of every token.

    .. math:: W_t = w_t\,1[lower \le w_t \le upper],\qquad w_t = \frac{\pi_{old}(y_t)}{\mu(y_t)}

    The loss still divides by all tokens, so dropping some shortens the step: the share is noted as
    ``mismatch_changed_tokens``.

    Args:
        x_old: the policy at rollout time by the trainer's own forward, logps [B,T]. x_sampler: the engine's, [B,T].
        upper, lower: the band, its ends inside; None leaves a side open.
        veto: a row with any ratio below this weighs 0. normalised: divide by the mean weight of the batch.

    Returns:
        [B,T] without a gradient; 0 where masked.

    Raises:
        InputError: no engine log-probabilities, other shapes, no bound at all, bounds in the wrong order.
    """
    low, high = band("token_mask", lower, upper)
    return weigh("token_mask", x_old, x_sampler, token, lambda w: torch.where((w >= low) & (w <= high), w, 0.0),
                 veto=veto, normalised=normalised)  # fmt: skip


@claim(
    token_mask,
    "Where the engine reports 2% of its tokens wrong by 5 nats the masked gradient stays nearer to the on-policy one"
    " than no weights; unbounded ratios do worse than none.",
    cost="cpu:8s",
)
def faults_are_left_out() -> Evidence:
    every = partial(token_truncate, upper=math.inf, lower=1e-9)
    found = {
        name: gradient_cosine(weights, noise=0.1, faults=0.02)
        for name, weights in (("none", no_weights), ("masked", token_mask), ("unbounded", every))
    }
    return Evidence(found["masked"] > found["none"], found, control=found["unbounded"] < found["none"])
