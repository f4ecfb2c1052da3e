"""Self-certainty: how far a model's next-token distributions are from uniform along an answer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.decode.samples import certainty
from plumbline.kernels.seeds import generator

_BLOCK_BYTES = 64 << 20  # of float32 logits at a time


@function(
    paper=Paper(
        "Scalable Best-of-N Selection for Large Language Models via Self-Certainty",
        "Kang et al.",
        2025,
        arxiv="2502.18581",
    ),
    says="Score an answer by the mean divergence of its next-token distributions from uniform.",
    differs=(
        "Position t is the distribution that the token was drawn from; the official script takes the logits one step "
        "later, leaving out the first token's and adding the one after the last.",
        "The end token's distribution counts when the mask includes it; the official script re-tokenises the text and "
        "has none.",
        "Columns beyond vocab_size are dropped before normalising: the paper does not speak of padded vocabularies.",
    ),
)
def self_certainty(logits: Tensor, mask: Tensor, *, vocab_size: Count | None = None) -> Tensor:
    r"""Mean :math:`KL(U \| p_t)` over the tokens of each answer.

    .. math:: \mathrm{SC} = -\frac{1}{nV}\sum_{t=1}^{n}\sum_{v=1}^{V} \log(V p_{tv})
        = \frac1n \sum_t \Bigl[\log\sum_v e^{z_{tv}} - \frac1V\sum_v z_{tv} - \log V\Bigr]

    Args:
        logits: [B, T, V] raw logits; position t is what the answer's t-th token was drawn from. From ``generate``:
            ``torch.stack(out.logits, 1)`` with ``output_logits=True``. Its ``scores`` are processed and will not do.
        mask: [B, T], nonzero on the answer's tokens; at least one a row.
        vocab_size: how many columns are real, where the head is padded beyond the tokenizer.

    Returns:
        [B] nats, 0 for uniform distributions; float32 (float64 for float64 logits).

    Raises:
        InputError: shapes that do not fit, an empty row, or -inf among the logits, which would make it infinite.
    """
    if logits.dim() != 3 or mask.shape != logits.shape[:2]:
        shapes = f"{list(logits.shape)} and {list(mask.shape)}"
        raise refuse("self_certainty", "logits and mask", "[B, T, V] and [B, T]", shapes, "pass one mask entry a token")
    width = logits.shape[-1] if vocab_size is None else vocab_size
    if width > logits.shape[-1]:
        raise refuse("self_certainty", "vocab_size", f"at most {logits.shape[-1]}", width, "leave it out")
    kept = mask != 0
    if not bool(kept.any(-1).all()):
        raise refuse("self_certainty", "mask", "nonzero somewhere in every row", "an empty row", "drop empty answers")
    rows = logits[..., :width].flatten(0, 1).split(max(1, _BLOCK_BYTES // (4 * width)))
    values = torch.cat([certainty(block) for block in rows]).view(kept.shape)
    values = torch.where(kept, values, 0.0)
    if not bool(values.isfinite().all()):
        do = "take output_logits=True from generate, before top-k, top-p or forbidding rules"
        raise refuse("self_certainty", "logits", "finite", "-inf, inf or NaN", do)
    return values.sum(-1) / kept.sum(-1)


@claim(
    self_certainty,
    "Certainty over the whole distribution tells right answers from wrong ones, also where the probability of the "
    "sampled tokens cannot: it reads what the model knew, not which token the dice chose.",
    cost="cpu:3s",
)
def reads_the_distribution_not_the_dice() -> Evidence:
    stream, rows, steps, vocab = generator(0, "self_certainty"), 600, 8, 200
    right = torch.arange(rows) % 2 == 0
    # the right half is sharper; tokens are drawn, so a short answer's own log-probability is mostly chance
    sharp = torch.where(right, 2.0, 1.7)[:, None, None] + 0.15 * torch.randn(rows, 1, 1, generator=stream)
    z = sharp * torch.randn(rows, steps, vocab, generator=stream)
    drawn = torch.multinomial(z.softmax(-1).flatten(0, 1), 1, generator=stream).view(rows, steps, 1)
    logp = (z.gather(-1, drawn)[..., 0] - z.logsumexp(-1)).mean(-1)
    sure = self_certainty(z, torch.ones(rows, steps))
    flat = self_certainty(torch.zeros(2, steps, vocab), torch.ones(2, steps)).abs().max()
    auroc = {name: _auroc(x, right) for name, x in (("self_certainty", sure), ("log_probability", logp))}
    return Evidence(
        holds=auroc["self_certainty"] > 0.8 and float(flat) < 1e-5,
        measured={**auroc, "of_uniform": float(flat)},
        control=auroc["log_probability"] < auroc["self_certainty"] - 0.1,
    )


def _auroc(score: Tensor, right: Tensor) -> float:
    return float(np.mean((score[right][:, None] > score[~right][None]).double().numpy()))
