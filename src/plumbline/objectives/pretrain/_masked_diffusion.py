"""Masked diffusion: cross-entropy on the hidden tokens, each weighed by how rarely one is hidden at that noise."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, Paper, claim, objective
from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.seeds import generator


@objective(
    paper=Paper("Large Language Diffusion Models", "Nie et al.", 2025, arxiv="2502.09992"),
    says="Predict the hidden tokens from the others, with weights that make the mean a bound on the log-likelihood.",
    differs=(
        "The supervised form: only the response is hidden, and each row is divided by its own response's length.",
        "The response's length is read off mask_prob, which is 0 where nothing can be hidden.",
    ),
)
def masked_diffusion(x: Scored, mask_prob: Tensor) -> Tensor:
    r"""Per-row loss of LLaDA's supervised fine-tuning.

    .. math:: \ell = -\frac{1}{n} \sum_{t \text{ hidden}} \frac{\log\pi_\theta(y_t \mid \tilde y)}{q_t},
              \qquad n = |\{t : q_t > 0\}|

    In expectation over rate and mask, :math:`n\,\ell` bounds :math:`-\log p_\theta(y)` from above, for the text that
    the model writes in a random order; it is equal where the model's conditionals are those of one joint distribution.

    Args:
        x: the trained model on the noisy row, logps [B, T] at the hidden positions, of the token **at** the position:
            ``Scored.of(..., shift=False)``, ``fit(..., shift=False)``.
        mask_prob: [B, T], the rate q with which a position was hidden; 0 on the prompt, and n counts the rest: end and
            padding belong to the response. A constant. ``pretrain.noising.noised`` makes it with the labels.

    Returns:
        [B] nats per token; 0 for a row in which nothing is hidden. Take the mean over B.

    Raises:
        InputError: another shape, a hidden position with a rate of 0.
    """
    rate = mask_prob.detach().to(x.logps.dtype)
    if rate.shape != x.logps.shape:
        raise refuse("masked_diffusion", "mask_prob", f"of shape {list(x.logps.shape)}", list(rate.shape),
                     "score with shift=False: position t predicts token t")  # fmt: skip
    if bool((x.mask & (rate <= 0)).any()):
        raise refuse("masked_diffusion", "mask_prob", "above 0 wherever a token is hidden", "0 at a scored position",
                     "make labels and mask_prob with noising.noised")  # fmt: skip
    length = (rate > 0).sum(-1).clamp(min=1)
    return torch.where(x.mask, -x.logps / torch.where(x.mask, rate, 1.0), 0.0).sum(-1) / length


def _example(mask: Tensor) -> dict[str, Tensor]:
    return {"mask_prob": torch.where(mask, torch.tensor([0.2, 0.5, 0.7, 1.0])[:, None], 0.0)}


def _bounds(sharpness: float, steps: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """-log p(y) [27], the expected n times loss, and the same without weights, of all texts of 3 out of 3 tokens.

    The model knows the joint p and answers with its conditionals, to the power ``sharpness`` and normalised.
    """
    n, g = 3, generator(0, "masked_diffusion")
    p = torch.randn(n**3, generator=g, dtype=torch.float64).mul(1.5).softmax(-1).reshape(n, n, n)
    masks = torch.tensor(list(itertools.product((False, True), repeat=n)))  # [8, 3], True: hidden
    texts = torch.cartesian_prod(*[torch.arange(n)] * n)  # [27, 3]
    logits = torch.zeros(len(texts), len(masks), n, n, dtype=torch.float64)
    for i, text in enumerate(texts):
        for j, hidden in enumerate(masks):
            seen = p[tuple(slice(None) if h else slice(int(v), int(v) + 1) for h, v in zip(hidden, text))]
            for t in range(n):
                if hidden[t]:
                    logits[i, j, t] = sharpness * seen.sum([d for d in range(n) if d != t]).log()
    rates = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    count, rows = masks.sum(-1), len(texts) * len(masks)
    ids = texts[:, None].expand(-1, len(masks), -1).reshape(rows, n)
    x = Scored.from_logits(logits.reshape(rows, n, n), ids, masks.repeat(len(texts), 1), shift=False)
    weighed, bare = torch.zeros(2, len(texts), dtype=torch.float64)
    for q in rates:
        chance = q**count * (1 - q) ** (n - count) / steps
        loss = masked_diffusion(x, torch.full((rows, n), float(q), dtype=torch.float64)).reshape(len(texts), -1)
        weighed, bare = weighed + n * (loss * chance).sum(-1), bare + n * (q * loss * chance).sum(-1)
    return -p.flatten().log(), weighed, bare


@claim(
    masked_diffusion,
    "Over rates and masks the loss is -log p(y) for a model that knows the joint, and more for one that does not.",
    cost="cpu:2s",
)
def bounds_the_likelihood() -> Evidence:
    """The control leaves out the weights 1/q, as BERT does: no bound, far below."""
    wanted, exact, bare = _bounds(1.0)
    _, blunt, _ = _bounds(0.7)
    p = (-wanted).exp()
    off, above, short = (exact - wanted).abs().max(), (p * (blunt - wanted)).sum(), (p * (bare - wanted)).sum()
    measured = {"largest difference": off, "blunt model, mean excess": above, "without weights": short}
    return Evidence(bool(off < 1e-3 and above > 0.01), measured, control=bool(short < -0.5))
