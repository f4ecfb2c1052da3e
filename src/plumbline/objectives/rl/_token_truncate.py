"""Token-level truncated importance sampling: each token weighs its own ratio of trainer to engine, up to a bound."""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Positive, claim, function
from plumbline.core.scored import Scored
from plumbline.lab.mismatch import Truncated, enumerated_error, gradient_cosine, no_weights
from plumbline.lab.tiny import tiny
from plumbline.objectives.rl.correction import band, sequence, token, weigh


@function(
    paper=None,
    says="Weights that pull a policy gradient back to the policy where the engine that sampled is another: by token.",
    differs=(
        "Standard practice without a paper of its own: TRL's token_truncate, verl's token-level rollout correction.",
        "A token for which the engine gave no finite number weighs 1, as in TRL, and is counted.",
        "Log-ratios stay within 20 nats before exp, as in verl.",
    ),
)
def token_truncate(
    x_old: Scored, x_sampler: Scored, *, upper: Positive | None = 2.0, lower: NonNegative | None = None,
    veto: Positive | None = None, normalised: bool = False,
) -> Tensor:  # fmt: skip
    r"""Truncated weight of every token.

    .. math:: W_t = \mathrm{clip}\Bigl(\frac{\pi_{old}(y_t)}{\mu(y_t)},\ lower,\ upper\Bigr)

    It reduces the bias of the engine and does not remove it: the prefix before a token was drawn by the engine too.
    Multiply the policy term by it, not a KL term.

    Args:
        x_old: the policy at rollout time by the trainer's own forward, logps [B,T]. x_sampler: the engine's, [B,T].
        upper, lower: the bounds; None leaves a side open. 2 and none are verl's; TRL's upper is 3.
        veto: a row with any ratio below this weighs 0. normalised: divide by the mean weight of the batch.

    Returns:
        [B,T] without a gradient; 0 where masked.

    Raises:
        InputError: no engine log-probabilities, other shapes, no bound at all, bounds in the wrong order.
    """
    low, high = band("token_truncate", lower, upper)
    return weigh("token_truncate", x_old, x_sampler, token, lambda w: w.clamp(low, high), veto=veto,
                 normalised=normalised)  # fmt: skip


@claim(
    token_truncate,
    "Weighed by trainer over engine, the expected gradient over the engine's samples is the on-policy gradient.",
    cost="cpu:2s",
)
def gradient_is_the_on_policy_one() -> Evidence:
    weighed = enumerated_error(partial(token_truncate, upper=math.inf, lower=1e-9))
    plain = enumerated_error(no_weights)
    return Evidence(weighed < 1e-12, {"largest error": weighed, "without weights": plain}, control=plain > 1e-2)


@claim(
    token_truncate,
    "It brings the sampled gradient nearer to the on-policy one than no weights do, and less near than weights of"
    " whole answers.",
    cost="cpu:10s",
)
def bias_is_reduced_not_removed() -> Evidence:
    found = {}
    for noise in (0.3, 1.0):
        whole = partial(weigh, "sequence", level=sequence, change=lambda w: w)
        for name, weights in (("none", no_weights), ("token", token_truncate), ("sequence", whole)):
            found[f"{name} at noise {noise}"] = gradient_cosine(weights, noise=noise)
    at = {n: [found[f"{name} at noise {n}"] for name in ("none", "token", "sequence")] for n in (0.3, 1.0)}
    holds = all(none < by_token < by_answer for none, by_token, by_answer in at.values())
    # without mismatch there is nothing to gain
    same = [gradient_cosine(w, noise=0.0, seeds=1) for w in (no_weights, token_truncate)]
    return Evidence(holds, found | {"none, token at noise 0": same}, control=abs(same[0] - same[1]) < 1e-6)


@claim(
    token_truncate,
    "An engine of identical weights that keeps 8 tokens makes every log-ratio the log of the kept mass, a bias that"
    " grows with length; replaying the kept sets makes every ratio 1.",
    cost="cpu:3s",
)
def truncated_support_is_a_bias() -> Evidence:
    import torch

    ids = torch.arange(400).reshape(50, 8) % 97 + 3
    case = Truncated.of(tiny("llama"), ids, top_k=8)
    plain, replayed = (token_truncate(x, case.sampler)[:, -1] for x in (case.full, case.kept))
    off = float((plain - case.mass[:, -1]).abs().max())
    ones = float((replayed - 1).abs().max())
    found = {"ratio minus kept mass": off, "mean ratio": plain.mean(), "replayed, from 1": ones}
    return Evidence(off < 1e-5 and ones < 1e-5, found, control=bool(plain.mean() < 0.95))
