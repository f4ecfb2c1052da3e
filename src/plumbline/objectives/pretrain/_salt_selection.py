"""SALT's data selection: sequences that are hard for a small early model, on tokens that it could have got right."""

from __future__ import annotations

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, claim, function
from plumbline.core.errors import refuse
from plumbline.kernels.seeds import generator


@function(
    paper=Paper(
        "A Little Help Goes a Long Way: Efficient LLM Training by Leveraging Small LMs",
        "Rawat et al.",
        2024,
        arxiv="2410.18779",
    ),
    says="Pick the sequences whose median loss under an early small model is highest, over tokens in its top k alone.",
    differs=(
        "That tokens outside the top k are left out of the median, and not counted as 0, is from memory of the paper.",
        "Ties go to the earlier sequence, so that the choice is reproducible.",
    ),
)
def salt_selection(teacher_logps: Tensor, in_topk: Tensor, *, keep: Count) -> Tensor:
    r"""Indices of the sequences for the first, distilled stage.

    .. math:: s_n = \mathrm{median}\{-\log P_S(y_{nt}) : y_{nt} \in \mathrm{top}_k\, P_S(\cdot)\},\qquad
              s_n = -\infty \text{ where there is no such token}

    The median of an even number is the mean of the two in the middle. A long row of noise still has a token in the top
    k now and then, and is scored by those alone: the filter works where :math:`T k \ll V`.

    Args:
        teacher_logps: [N, T] nats, of the labels under an *early* checkpoint of the teacher. The final one, which gives
            the soft labels, finds nothing hard that is learnable: say so where one model does both jobs.
        in_topk: [N, T] bool, whether the label is among the teacher's k likeliest (k = 10 in the paper, from memory);
            False where there is no token.
        keep: how many sequences, m.

    Returns:
        [m] int64, the highest score first; sequences without a token in the top k come last.

    Raises:
        InputError: the shapes differ, or there are fewer than m sequences.
    """
    if teacher_logps.dim() != 2 or in_topk.shape != teacher_logps.shape:
        shapes = [tuple(teacher_logps.shape), tuple(in_topk.shape)]
        raise refuse("salt_selection", "teacher_logps and in_topk", "both [N,T]", shapes, "pass one mark per label")
    if keep > len(teacher_logps):
        raise refuse(
            "salt_selection", "keep", f"at most {len(teacher_logps)}, the sequences there are", keep, "lower it"
        )
    wide = -teacher_logps.to(torch.promote_types(teacher_logps.dtype, torch.float32))
    losses = wide.masked_fill(~in_topk.bool(), torch.inf).sort(-1).values  # those that count come first
    count = in_topk.bool().sum(-1, keepdim=True)
    middle = torch.cat([(count - 1).clamp(min=0) // 2, count // 2], -1).clamp(max=losses.shape[1] - 1)
    score = torch.where(count[:, 0] > 0, losses.gather(-1, middle).mean(-1), -torch.inf)
    return score.argsort(descending=True, stable=True)[:keep]


@claim(
    salt_selection,
    "Noise ranks below hard but learnable sequences; ranked by mean loss, as is usual, noise comes first.",
    cost="cpu:5s",
)
def noise_ranks_last() -> Evidence:
    rows, length, vocab, k = 100, 16, 5000, 10
    g = generator(0, "salt_selection")

    def seen(spread: float, learnable: bool) -> tuple[Tensor, Tensor]:
        """Label log-probabilities and top-k marks under a teacher that is calibrated where labels are learnable."""
        scores = spread * torch.randn(rows * length, vocab, generator=g)
        p = scores.softmax(-1)
        labels = torch.multinomial(p, 1, generator=g) if learnable else torch.randint(vocab, (len(p), 1), generator=g)
        inside = (p.topk(k).indices == labels).any(-1)
        return p.gather(-1, labels).log().view(rows, length), inside.view(rows, length)

    (easy, easy_in), (hard, hard_in), (noise, noise_in) = seen(8, True), seen(4, True), seen(8, False)
    logps, inside = torch.cat([easy, hard, noise]), torch.cat([easy_in, hard_in, noise_in])
    place = salt_selection(logps, inside, keep=3 * rows).argsort()
    usual = (-logps).mean(-1).argsort(descending=True).argsort()

    def hard_before(order: Tensor, which: slice) -> float:
        return float((order[rows : 2 * rows, None] < order[None, which]).float().mean())

    last, first = slice(2 * rows, None), slice(0, rows)
    found, other = hard_before(place, last), hard_before(usual, last)
    measured = {
        "hard before noise": found, "hard before easy": hard_before(place, first), "by mean loss": other
    }  # fmt: skip
    return Evidence(found >= 0.95 and measured["hard before easy"] > 0.9, measured, control=other < 0.05)
