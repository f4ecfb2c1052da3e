"""Reverse Speculative Decoding: the teacher proposes, the student approves; text a small student can learn from."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Count, Evidence, Paper, Probability, claim, logit_rule
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator
from plumbline.kernels.vocab import log_probs


@logit_rule(
    paper=Paper(
        "In Their Own Words: Reasoning Traces Tailored for Small Models Make Them Better Reasoners",
        "Kim et al.",
        2025,
        arxiv="2509.22230",
    ),
    says="Write what the teacher says in tokens that the student finds likely enough.",
    differs=(
        "The trials are not drawn one by one: their outcome's distribution has a closed form, which is returned.",
        "Probabilities are raw, as in a public data script with the paper's models, where temperature 0.7 and top-p"
        " 0.95 do not reach the candidates.",
        "One vocabulary, or two that differ in padding only; that script also maps special tokens between two.",
        "strict is an addition: the student's own fallback token, too, must reach the threshold where any does.",
    ),
)
def reverse_speculative(
    teacher: Any,
    *,
    threshold: Probability = 0.01,
    trials: Count = 5,
    top: Count = 20,
    strict: bool = False,
) -> Rule:
    r"""The distribution of: draw up to m times from the teacher's pool, take the first token the student accepts, else
    draw from the student's pool.

    With :math:`\pi_T, \pi_S` the teacher's and student's ``top`` likeliest tokens renormalised,
    :math:`A = \{v \in \pi_S : p_S(v) \ge threshold\}` and :math:`a = \pi_T(A)`:

    .. math::

        P(v) = \pi_T(v)\,1[v \in A]\,\frac{1 - (1-a)^m}{a} + (1-a)^m\,\pi_S(v)

    Args:
        teacher: the large model; logits [B, V]. The model that generates is the student.
        threshold: the least probability at which the student accepts a token.
        trials: m. top: size of either pool.
        strict: keep the fallback within A where A is not empty; otherwise fallback tokens may lie below threshold.

    Returns:
        A rule ``(tokens [B, T], logits [B, V]) -> [B, V]`` of :math:`\log P`, to be sampled at temperature 1. Lossless
        for neither model, by design.
    """

    def approve(student: Tensor, proposed: Tensor) -> Tensor:
        p_student = torch.softmax(student, -1)
        own = _pool(student, top)
        accepted = (own > 0) & (p_student >= threshold)
        if strict:
            inside = own * accepted
            own = torch.where(accepted.any(-1, keepdim=True), inside / inside.sum(-1, keepdim=True), own)
        candidates = _pool(proposed, top) * accepted
        a = candidates.sum(-1, keepdim=True).clamp(max=1.0)
        missed = torch.exp(trials * torch.log1p(-a))
        # (1 - (1-a)^m) / a, which tends to m as a tends to 0
        gain = torch.where(a > 0, -torch.expm1(trials * torch.log1p(-a)) / a, torch.full_like(a, trials))
        return (candidates * gain + missed * own).log()

    return Rule("reverse_speculative", approve, teacher)


def _pool(logits: Tensor, size: int) -> Tensor:
    """Probabilities [B, V] of the ``size`` likeliest tokens, renormalised; 0 elsewhere."""
    best = logits.topk(min(size, logits.shape[-1]), -1)
    return torch.zeros_like(logits).scatter_(-1, best.indices, torch.softmax(best.values, -1))


@claim(
    reverse_speculative,
    "Traces the student approves are less surprising to it than the teacher's own, and accepted tokens never exceed"
    " -log threshold.",
    cost="cpu:2s",
)
def traces_stay_within_the_students_reach() -> Evidence:
    draw = generator(0, "reverse_speculative")
    states = torch.arange(20)[:, None]
    # a sharp teacher with rare turns, and a student of rank 3 that cannot represent them
    teacher = 4.0 * torch.randn(20, 20, generator=draw, dtype=torch.float64)
    left, values, right = torch.linalg.svd(teacher)
    student = (left[:, :3] * values[:3]) @ right[:3]
    surprise = -log_probs(student)

    def chain(settings: dict[str, Any]) -> Tensor:
        return torch.softmax(reverse_speculative(lambda ids: teacher[ids[:, -1]], **settings)(states, student), -1)

    def expected(transitions: Tensor) -> tuple[float, float]:
        """Mean surprisal per token in the long run, and its largest value over transitions that can happen."""
        often = torch.linalg.matrix_power(transitions, 4096)[0]
        per_state = (transitions * surprise).sum(-1)
        return float(often @ per_state), float(surprise[transitions > 1e-12].max())

    own, worst = expected(torch.softmax(teacher, -1))
    tailored, kept = expected(chain({"strict": True}))
    loose, _ = expected(chain({}))
    unchecked, _ = expected(chain({"threshold": 0.0, "top": 20}))
    return Evidence(
        holds=tailored < own and loose < own and kept <= -math.log(0.01) + 1e-9 < worst,
        measured={
            "teacher_nll": own, "tailored_nll": tailored, "with_plain_fallback_nll": loose, "teacher_largest": worst,
            "tailored_largest": kept, "threshold_0_nll": unchecked,
        },
        control=abs(unchecked - own) < 1e-9,  # without the student's veto the traces are the teacher's
    )  # fmt: skip
