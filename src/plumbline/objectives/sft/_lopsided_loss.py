"""Lopsided language-model loss: a short judgment weighs as much as it should beside its long explanation."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, claim, objective
from plumbline.core.errors import refuse
from plumbline.core.scored import Scored
from plumbline.kernels.notes import note
from plumbline.kernels.ranks import total
from plumbline.lab.explained import judgment_accuracy
from plumbline.objectives.sft.segments import INTERPRETATION, JUDGMENT


@objective(
    paper=Paper(
        "Interpretable Face Anti-Spoofing: Enhancing Generalization with Multimodal Large Language Models",
        "Zhang et al.",
        2025,
        arxiv="2501.01720",
    ),
    says="Average the judgment's tokens and the explanation's apart, and weigh the two averages.",
    differs=(
        "The weights 1 and 0.1 are a judgement; the paper's were not recovered.",
        "The loss alone: the paper's captions, their filter and its connector are not part of it.",
    ),
    needs=("batch",),
)
def lopsided_loss(
    x: Scored, segments: Tensor, *, judgment: NonNegative = 1.0, interpretation: NonNegative = 0.1
) -> Tensor:
    r"""Per-token loss whose sum over the n scored tokens of the batch, divided by n, is the weighted sum of two means.

    .. math:: w_J L_J + w_I L_I,\quad L_s = \frac{1}{n_s} \sum_{t \in s} -\log\pi_\theta(y_t), \qquad
              \ell_t = -\frac{n}{n_s} w_s \log\pi_\theta(y_t)

    Counts are those of the batch on all processes, whatever the rows' lengths. With gradient accumulation they are the
    micro-batch's: what comes out is the mean of the micro-batches' losses by scored tokens, which is the pooled loss
    where every micro-batch has the same shares of judgment. Prefer large micro-batches. A segment that a batch lacks
    adds nothing.

    Args:
        x: the trained model, logps [B, T].
        segments: [B, T], 1 for judgment tokens and their delimiter, 2 for the interpretation, 0 for tokens that are not
            to be learned; ``objectives.sft.segments.segment_by_delimiter`` makes the column.
        judgment, interpretation: :math:`w_J` and :math:`w_I`; at the shares of tokens it is the likelihood loss.

    Returns:
        [B, T] nats, 0 where masked.

    Raises:
        InputError: segments of another shape or with other values; a judgment that comes after its interpretation,
            which would have leaked the answer to it.
    """
    if segments.shape != x.logps.shape:
        raise refuse("lopsided_loss", "segments", f"of shape {tuple(x.logps.shape)}", tuple(segments.shape),
                     "give the rows a column with one entry per id")  # fmt: skip
    first, second = ((segments == s) & x.mask for s in (JUDGMENT, INTERPRETATION))
    if bool((x.mask & (segments != 0) & ~first & ~second).any()):
        raise refuse("lopsided_loss", "segments", "0, 1 or 2", segments[x.mask].unique().tolist(),
                     "mark judgments 1 and interpretations 2")  # fmt: skip
    late = (first & (second.cumsum(-1) > 0)).any(-1)
    if bool(late.any()):
        row = f"row {int(late.int().argmax()) + 1}"
        raise refuse("lopsided_loss", "segments", "judgment before interpretation", row, "begin with the judgment")
    n, n_first, n_second = total(torch.stack([x.mask.sum(), first.sum(), second.sum()])).clamp(min=1)
    loss = torch.where(first, -x.logps * (judgment * n / n_first), 0.0)
    loss = loss + torch.where(second, -x.logps * (interpretation * n / n_second), 0.0)
    for name, part in (("judgment_nll", first), ("interpretation_nll", second)):
        note(**{name: -torch.where(part, x.logps, 0.0).sum() / part.sum().clamp(min=1)})
    return loss


def _example(mask: Tensor) -> dict[str, Tensor]:
    return {"segments": torch.where(torch.arange(mask.shape[1]) < 2, JUDGMENT, INTERPRETATION).repeat(len(mask), 1)}


@claim(
    lopsided_loss,
    "Beside a long noisy explanation the judgment is learned better than when every token weighs alike.",
    cost="cpu:20s",
)
def judgment_is_not_drowned() -> Evidence:
    def apart(x: Scored, segments: Tensor) -> Tensor:
        return lopsided_loss(x, segments)

    def by_share(x: Scored, segments: Tensor) -> Tensor:
        return lopsided_loss(x, segments, judgment=1 / 31, interpretation=30 / 31)

    def likelihood(x: Scored, segments: Tensor) -> Tensor:
        return -x.logps

    found = {f.__name__: [judgment_accuracy(f, seed=s) for s in range(5)] for f in (apart, likelihood)}
    gains = [a - b for a, b in zip(*found.values(), strict=True)]
    shared = judgment_accuracy(by_share, seed=0)
    told = {"judgment accuracy": found, "weights of the token shares, first seed": shared}
    return Evidence(sum(gains) / 5 >= 0.03 and min(gains) > 0, told, control=shared - found["likelihood"][0] < 0.01)
