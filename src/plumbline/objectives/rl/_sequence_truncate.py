"""Sequence-level truncated importance sampling: an answer weighs its ratio of trainer to engine, up to a bound."""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Positive, claim, function
from plumbline.core.scored import Scored
from plumbline.lab.mismatch import enumerated_error, gradient_cosine, no_weights
from plumbline.objectives.rl._token_truncate import token_truncate
from plumbline.objectives.rl.correction import band, sequence, weigh


@function(
    paper=None,
    says="Engine-mismatch weights by whole answer: unbiased but for the bound, and noisier the longer the answers.",
    differs=(
        "Standard practice without a paper of its own: TRL's sequence_truncate, whose bound of 3 is the default.",
        "A token for which the engine gave no finite number counts as ratio 1, as in TRL, and is counted.",
        "The sum of log-ratios stays within 20 nats before exp, as in verl.",
    ),
)
def sequence_truncate(
    x_old: Scored, x_sampler: Scored, *, upper: Positive | None = 3.0, lower: NonNegative | None = None,
    veto: Positive | None = None, normalised: bool = False,
) -> Tensor:  # fmt: skip
    r"""Truncated weight of every answer.

    .. math:: W = \mathrm{clip}\Bigl(\prod_t \frac{\pi_{old}(y_t)}{\mu(y_t)},\ lower,\ upper\Bigr)

    Args:
        x_old: the policy at rollout time by the trainer's own forward, logps [B,T]. x_sampler: the engine's, [B,T].
        upper, lower: the bounds; None leaves a side open.
        veto: a row with any token's ratio below this weighs 0. normalised: divide by the mean weight of the batch.

    Returns:
        [B,1] without a gradient; 0 for a row without a scored token. It warns where the answers that it bounds are
        the long ones.

    Raises:
        InputError: no engine log-probabilities, other shapes, no bound at all, bounds in the wrong order.
    """
    low, high = band("sequence_truncate", lower, upper)
    return weigh("sequence_truncate", x_old, x_sampler, sequence, lambda w: w.clamp(low, high), veto=veto,
                 normalised=normalised)  # fmt: skip


@claim(
    sequence_truncate,
    "Weights of whole answers turn the engine's samples into the on-policy gradient where weights of tokens cannot.",
    cost="cpu:8s",
)
def answers_beat_tokens() -> Evidence:
    exact = enumerated_error(partial(sequence_truncate, upper=math.inf, lower=1e-9))
    found = {"error over every action": exact}
    for noise in (0.3, 1.0):
        found[f"sequence at noise {noise}"] = gradient_cosine(sequence_truncate, noise=noise)
        found[f"token at noise {noise}"] = gradient_cosine(token_truncate, noise=noise)
    found["none at noise 1.0"] = gradient_cosine(no_weights, noise=1.0)
    better = all(found[f"sequence at noise {n}"] > found[f"token at noise {n}"] for n in (0.3, 1.0))
    holds = better and exact < 1e-12 and found["sequence at noise 1.0"] > 0.8
    return Evidence(holds, found, control=max(found["token at noise 1.0"], found["none at noise 1.0"]) < 0.7)
