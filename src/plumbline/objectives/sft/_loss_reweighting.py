"""Loss-based reweighting: within each batch, samples that are already learned make room for the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Count, Evidence, Paper, Positive, claim, objective
from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.kernels.ranks import everywhere
from plumbline.lab.regression import mixed_regression
from plumbline.objectives.sft.strategies import extremes, linupper, quadratic, uniform


@objective(
    paper=Paper(
        "Dynamic Loss-Based Sample Reweighting for Improved Large Language Model Pretraining",
        "Sow et al.",
        2025,
        arxiv="2502.06733",
    ),
    says="Weigh each row of the batch by a function of its current loss; by default low losses count for less.",
    differs=(
        "The temperature is constant; the paper also lets it fall from a large value, which switches over smoothly.",
        "Rows weigh alike whatever their length; the official trainer also multiplies by the share of tokens, which "
        "length_weight=True does.",
        "linupper is the default, as in the paper's best runs; the official configuration files name quadratic (mid).",
    ),
    needs=("batch",),
)
def loss_reweighting(
    x: Scored, step: int | None = None, *, strategy: Callable[[Tensor, float], Tensor] = linupper,
    temperature: Positive = 1.0, delta: Positive = 1.0, burn_in: Annotated[int, Bound(ge=0)] = 1000,
    length_weight: bool = False, fewest: Count = 4,
) -> Tensor:  # fmt: skip
    r"""Per-row loss whose mean over rows is the reweighted loss of the batch.

    .. math:: \sum_i w_i \ell_i,\quad w = \mathrm{softmax}\bigl(f(h)/r\bigr),\quad
              h_i = \delta\,\frac{2\ell_i - \ell_{max} - \ell_{min}}{\ell_{max} - \ell_{min}}

    :math:`\ell_i` is the token mean of row i, n the number of rows; row i returns :math:`n\,w_i\,\ell_i`. The weights
    are constants to the gradient and are made over the rows of all processes. With gradient accumulation each
    micro-batch is weighed by itself, since later ones are not yet scored.

    Args:
        x: the trained model, logps [B, T]. A row whose loss is not finite, or without a scored token, gets no weight.
        step: optimizer step; before ``burn_in`` all rows count alike. Left out: the burn-in is over.
        strategy: f, a function of places [N] and delta; ``objectives.sft.strategies`` holds the paper's.
        temperature: r; large values tend to equal weights.
        delta: the places span [-delta, delta]. burn_in: steps, from the official configuration.
        length_weight: multiply each row by its share of the tokens, times n, as the official trainer does.
        fewest: rows over all processes; with fewer there is hardly a place to tell.

    Returns:
        [B] nats.

    Raises:
        InputError: fewer than ``fewest`` rows.
    """
    losses = -x.mean()
    everyone, scored_tokens = everywhere(losses), everywhere(x.mask.sum(-1))  # [N] of all processes
    if len(everyone) < fewest:
        raise refuse("loss_reweighting", "x", f"of at least {fewest} rows over all processes", len(everyone),
                     "raise per_device_train_batch_size and set dataloader_drop_last, or pass fewest=1")  # fmt: skip
    counted = (scored_tokens > 0) & everyone.isfinite()
    low, high = everyone[counted].aminmax() if counted.any() else (everyone.new_zeros(()),) * 2
    early = step is not None and step < burn_in

    def score(values: Tensor) -> Tensor:
        """Of losses [n], f(h)/r."""
        h = delta * (2 * values - (high + low)) / (high - low).clamp(min=1e-6)
        return (uniform if early else strategy)(h, delta) / temperature

    normaliser = score(everyone)[counted].logsumexp(0)
    mine = x.mask.any(-1) & losses.detach().isfinite()
    weights = (score(losses.detach()) - normaliser).exp() * len(everyone)  # n w_i: 1 on average
    if length_weight:
        weights = weights * x.mask.sum(-1) * len(everyone) / scored_tokens.sum().clamp(min=1)
    shares = (score(everyone)[counted] - normaliser).exp()
    note(lowest_weight=shares.amin() if len(shares) else 0.0, highest_weight=shares.amax() if len(shares) else 0.0,
         effective_rows=1 / shares.square().sum().clamp(min=1e-12), rows_left_out=(~counted).sum())  # fmt: skip
    return torch.where(mine, weights * torch.where(mine, losses, 0.0), 0.0)


@claim(
    loss_reweighting,
    "Where most rows are redundant, favouring high losses learns fastest, then the middle, then all alike; "
    "favouring both ends is slowest.",
    cost="cpu:8s",
)
def redundant_rows_make_room() -> Evidence:
    final = {
        name: [mixed_regression(partial(loss_reweighting, strategy=f, temperature=0.5), seed=s) for s in range(5)]
        for name, f in (("linupper", linupper), ("quadratic", quadratic), ("uniform", uniform), ("extremes", extremes))
    }
    rows = list(zip(*final.values(), strict=True))
    return Evidence(
        holds=all(lin <= 0.2 * even and mid < even for lin, mid, even, _ in rows),
        measured={"final loss": final},
        control=all(ends > even for _, _, even, ends in rows),
    )
