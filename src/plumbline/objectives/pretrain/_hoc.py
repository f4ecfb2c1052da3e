"""Higher-order compatibility: a new model's features are drawn to the old model's of the same input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plumbline.core.declare import Evidence, Paper, Positive, claim, objective
from plumbline.core.errors import refuse
from plumbline.kernels.seeds import generator
from plumbline.lab.features import encoder, free_head, retrieval


@objective(
    paper=Paper(
        "Stationary Representations: Optimally Approximating Compatibility and Implications for Improved Model "
        "Replacements",
        "Biondi et al.",
        2024,
        arxiv="2405.02581",
    ),
    says="Hold a new model's features to a frozen old one's on the same input, against those of other classes.",
    differs=(
        "Same-class pairs are left out of the sum by -inf; the official code multiplies their similarity by 0, which "
        "leaves terms of exp(0) in it.",
        "The cross-entropy is left to the caller: the paper trains lam CE + (1 - lam) HOC with lam = 0.1.",
        "The features compared are those of the process's own batch, as in the official code.",
        "A batch of one class has no negatives; its loss is 0, where the official code returns a number.",
    ),
    needs=("batch",),
)
def hoc(features: Tensor, features_old: Tensor, classes: Tensor, *, sharpness: Positive = 10.0) -> Tensor:
    r"""Per-row loss: a contrast with the old feature as the anchor and new ones as what it is compared with.

    .. math:: \ell_n = -\mu \langle f^{old}_n, f_n \rangle
              + \log \sum_{m:\, y_m \neq y_n} e^{\mu \langle f^{old}_n, f_m \rangle},\qquad \lVert f \rVert = 1

    Args:
        features: [B, D] of the model in training; normalised here. Carries the gradient.
        features_old: [B, D] of the frozen model on the same inputs; detached and normalised here.
        classes: [B] integers y.
        sharpness: :math:`\mu`, 10 in the official code.

    Returns:
        [B] nats; may be negative, since the positive pair is not in the sum.

    Raises:
        InputError: the shapes do not fit.
    """
    if features.dim() != 2 or features.shape != features_old.shape or classes.shape != features.shape[:1]:
        shapes = [tuple(x.shape) for x in (features, features_old, classes)]
        raise refuse("hoc", "features, features_old, classes", "[B,D], [B,D] and [B]", shapes, "pass one row per input")
    wide = torch.promote_types(features.dtype, torch.float32)
    new, old = (F.normalize(f.to(wide), dim=-1) for f in (features, features_old.detach()))
    similar = sharpness * old @ new.T  # [anchor n, compared m]
    same = classes[:, None] == classes
    if same.all():
        return similar.diagonal() * 0
    return similar.masked_fill(same, -torch.inf).logsumexp(-1) - similar.diagonal()


def _example(mask: Tensor) -> dict[str, Tensor]:
    features, old = torch.randn(2, len(mask), 5, generator=generator(0, "hoc example")).unbind()
    return {"features": features, "features_old": old, "classes": torch.arange(len(mask)) % 2}


@claim(
    hoc,
    "A model updated with it finds the old model's digits; trained without, or with the sign turned, it does not.",
    cost="cpu:8s",
)
def new_queries_find_old_features() -> Evidence:
    old = encoder(free_head(9), 9, rows=200, seed=0)

    def update(sign: float) -> nn.Module:
        def beside(features: Tensor, images: Tensor, classes: Tensor) -> Tensor:
            return sign * hoc(features, old(images), classes)

        return encoder(free_head(9, 1), 9, rows=600, seed=1, beside=beside if sign else None)

    found, without, against = (retrieval(update(sign), old) for sign in (1.0, 0.0, -1.0))
    measured = {
        "new asks old": found, "old asks old": retrieval(old, old), "without": without, "sign turned": against
    }  # fmt: skip
    return Evidence(found >= 0.7, measured, control=without <= 0.4 and against <= 0.4)
