"""SAMI: principles are followed where they can be told from the answer, and the answer from them; no labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Evidence, Paper, claim, objective
from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.lab.principles import information_gained


@objective(
    paper=Paper(
        "Self-Supervised Alignment with Mutual Information: Learning to Follow Principles without Preference Labels",
        "Fränken et al.",
        2024,
        arxiv="2404.14313",
    ),
    says="Raise the mutual information between constitutions and the answers written under them, by a two-way InfoNCE.",
    differs=("The optional KL to the reference is left to composition: add beta * x.kl_to(x_ref).mean().",),
    needs=("batch",),
)
def sami(x: Scored, *, n: Annotated[int, Bound(ge=2)] = 2) -> Tensor:
    r"""One loss per query, from the log-probability of each of its n answers under each of its n constitutions.

    .. math:: L_{ij} = \frac{1}{|y_j|}\log\pi_\theta(y_j \mid c_i, q), \qquad
              \ell_q = -\frac{1}{2n}\sum_i \left[L_{ii} - \log\sum_j e^{L_{ij}}\right]
                       -\frac{1}{2n}\sum_j \left[L_{jj} - \log\sum_i e^{L_{ij}}\right]

    :math:`\log n - \ell` is a lower bound on the mutual information, at most log n; it is noted as
    ``mutual_information``. Answer j was sampled under constitution j, from the model before this round of training;
    sample again for the next. Score the answer alone: its mask starts where the prompt ends, which differs with the
    constitution, and leaves out the closing end-of-sequence token. Shuffle the principles of a constitution, and drop
    a query whose answers are the same text: it teaches nothing.

    Args:
        x: the trained model on Q n² rows, logps [B, T], B = Q n²: query by query, inside it constitution by
            constitution, inside that answer by answer. A query's rows are in one batch; a trainer shuffles rows, so
            give it one row a query (``squares.square_row``) and ``prepare=squares.spread_squares``.
        n: constitutions of a query, and answers.

    Returns:
        [Q] nats; log n where nothing can be told apart.

    Raises:
        InputError: B is not a multiple of n².
    """
    means = x.mean()
    if len(means) % n**2:
        raise refuse("sami", "x", f"a multiple of n*n = {n**2} rows", len(means), "keep a query's rows in one batch")
    table = means.view(-1, n, n)  # [Q, constitution, answer]
    own = table.diagonal(dim1=1, dim2=2)
    which_answer, which_constitution = table.logsumexp(2) - own, table.logsumexp(1) - own
    loss = (which_answer + which_constitution).mean(-1) / 2
    note(mutual_information=math.log(n) - loss)
    return loss


@claim(
    sami,
    "On its own samples it makes constitutions and answers tell of each other while the answers stay diverse.",
    cost="cpu:8s",
)
def makes_principles_matter() -> Evidence:
    def run(loss: Callable[[Scored], Tensor]) -> tuple[list[float], list[float]]:
        gained, entropy = zip(*(information_gained(loss, seed=seed) for seed in range(4)), strict=True)
        return list(gained), list(entropy)

    exchanged = torch.tensor([1, 0, 3, 2])  # each answer credited to the other constitution
    gained, entropy = run(sami)
    wrong, _ = run(lambda x: sami(Scored(x.logps[exchanged], x.mask[exchanged])))
    copied, dull = run(lambda x: -x.mean()[[0, 3]])  # likelihood of the same samples collapses as it gains
    measured = {
        "information gained": gained, "entropy left, of 2.48": entropy, "gained with answers exchanged": wrong,
        "gained by likelihood": copied, "entropy left by likelihood": dull,
    }  # fmt: skip
    control = max(wrong) < 0.05 and sum(copied) < sum(gained) and sum(dull) < sum(entropy)
    return Evidence(min(gained) >= 0.15 and min(entropy) > 1.8, measured, control)
