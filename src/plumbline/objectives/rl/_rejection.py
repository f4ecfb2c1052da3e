"""Rejection: tokens or answers on which trainer and engine disagree are left out; the others keep their weight of 1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Positive, claim, function
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator
from plumbline.objectives.rl.correction import band, geometric, sequence, token, weigh


@function(
    paper=None,
    says="Leave out the tokens or answers whose ratio of trainer to engine leaves a band, without reweighing the rest.",
    differs=(
        "Standard practice without a paper of its own: verl's rejection sampling of rollouts.",
        "The level is a function (token, sequence or geometric of objectives.rl.correction), token by default.",
    ),
)
def rejection(
    x_old: Scored, x_sampler: Scored, *, level: Callable[[Tensor, Tensor], Tensor] = token, upper: Positive = 2.0,
    lower: Positive | None = None, veto: Positive | None = None,
) -> Tensor:  # fmt: skip
    r"""1 inside the band, 0 outside.

    .. math:: W = 1\bigl[lower \le e^{level(l)} \le upper\bigr],\qquad l_t = \log\frac{\pi_{old}(y_t)}{\mu(y_t)}

    The loss still divides by all tokens or rows, so rejecting some shortens the step: the shares are noted as
    ``mismatch_changed_tokens`` and ``mismatch_changed_rows``.

    Args:
        x_old: the policy at rollout time by the trainer's own forward, logps [B,T]. x_sampler: the engine's, [B,T].
        level: (l [B,T], mask [B,T]) -> [B,T] or [B,1]. A sum turns long answers away (it warns where that is seen), a
            geometric mean judges short and long alike.
        upper: 2, as in verl. lower: 1 / upper when None.
        veto: a row with any token's ratio below this weighs 0.

    Returns:
        [B,T] or [B,1] of zeros and ones, as the level; 0 where nothing is scored.

    Raises:
        InputError: no engine log-probabilities, other shapes, bounds in the wrong order.
    """
    low, high = band("rejection", 1 / upper if lower is None else lower, upper)
    inside = weigh("rejection", x_old, x_sampler, level, lambda w: torch.where((w >= low) & (w <= high), w, 0.0),
                   veto=veto)  # fmt: skip
    return torch.where(inside > 0, 1.0, 0.0)


@claim(
    rejection,
    "Under the same noise a token, a band on the answer's product keeps short answers and turns long ones away; a band"
    " on its geometric mean keeps both.",
    cost="cpu:2s",
)
def a_product_rejects_length() -> Evidence:
    g = generator(0, "rejection")
    kept: dict[str, float] = {}
    for length in (16, 512):
        noise = 0.1 * torch.randn(400, length, generator=g)
        x_old, x_sampler = Scored(noise - 2.0), Scored(torch.full_like(noise, -2.0))
        for level in (sequence, geometric):
            kept[f"{level.__name__} of {length}"] = float(rejection(x_old, x_sampler, level=level).mean())
    holds = kept["geometric of 16"] > 0.99 and kept["geometric of 512"] > 0.99
    return Evidence(holds, kept, control=kept["sequence of 16"] - kept["sequence of 512"] > 0.4)
