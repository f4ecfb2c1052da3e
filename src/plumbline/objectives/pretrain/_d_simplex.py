"""The d-Simplex: class prototypes fixed at the vertices of a regular simplex, the same for every model ever trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plumbline.core.declare import Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.lab.digits import CLASSES
from plumbline.lab.features import encoder, free_head, retrieval
from plumbline.objectives.pretrain.fixed_head import FixedHead


@function(
    paper=Paper(
        "Stationary Representations: Optimally Approximating Compatibility and Implications for Improved Model "
        "Replacements",
        "Biondi et al.",
        2024,
        arxiv="2405.02581",
    ),
    says="Prototypes of K classes that stay where they are, so that features of separately trained models agree.",
    differs=("Made in float64 and rounded once, where the official code works in float32.",),
)
def d_simplex(classes: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    r"""The vertices of a regular simplex around 0, as unit vectors.

    .. math:: \langle w_i, w_j \rangle = -\frac{1}{K-1} \;(i \neq j),\qquad \sum_i w_i = 0,\qquad \lVert w_i \rVert = 1

    From the K - 1 unit vectors and one point on their diagonal, less their mean, and normalised. K is fixed for good:
    allocate more classes than are known (1024 in the official code), for vertices cannot be added later.

    Args:
        classes: K, at least 2.

    Returns:
        [K, D] with D = K - 1, one prototype a row; ``objectives.pretrain.fixed_head.FixedHead`` makes logits by it.

    Raises:
        InputError: K is below 2.
    """
    if classes < 2:
        raise refuse("d_simplex", "classes", "at least 2", classes, "allocate more classes than you know of")
    d = classes - 1
    last = torch.full((1, d), (1 - (1 + d) ** 0.5) / d, dtype=torch.float64)
    points = torch.cat([torch.eye(d, dtype=torch.float64), last])
    return nn.functional.normalize(points - points.mean(0), dim=-1).to(dtype)


@claim(
    d_simplex,
    "A network finds its digits among the features of another with another seed and less data when the head is fixed, "
    "and does not when it is trained.",
    cost="cpu:5s",
)
def features_are_interchangeable() -> Evidence:
    def models(heads: list[nn.Module]) -> tuple[nn.Module, nn.Module]:
        return encoder(heads[0], 9, rows=200, seed=0), encoder(heads[1], 9, seed=1)

    old, new = models([FixedHead(d_simplex(CLASSES)) for _ in range(2)])
    old_trained, new_trained = models([free_head(9, seed) for seed in range(2)])
    found, other = retrieval(new, old), retrieval(new_trained, old_trained)
    measured = {
        "new asks old": found, "old asks old": retrieval(old, old), "new asks new": retrieval(new, new),
        "new asks old, trained heads": other, "new asks new, trained heads": retrieval(new_trained, new_trained),
    }  # fmt: skip
    return Evidence(found >= 0.7, measured, control=other <= 0.4)
