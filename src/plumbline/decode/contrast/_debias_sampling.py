"""Debias sampling: decode against what the model says when the evidence is taken away."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, Probability, claim, logit_rule
from plumbline.decode.mixing import plausible, weighted
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator
from plumbline.kernels.vocab import log_probs


@logit_rule(
    paper=Paper("Debiasing Large Visual Language Models", "Zhang et al.", 2024, arxiv="2403.05262"),
    says="Take out of the logits what the model would say without the evidence (image, passage, examples).",
    differs=(
        "The evidence-free runs are Peers: for text, the same model under the prompt without the passage, or with its "
        "tokens replaced by unk; for images, a function of the tokens that leaves the pixels out.",
        "Any number of evidence-free runs is averaged; the official code has one or two.",
        "alpha is 1, as in the official run scripts; its sampling code falls back to 0.5.",
        "A token that an evidence-free run gives probability 0 is forbidden, where the formula has +inf.",
    ),
)
def debias_sampling(free: Any, *more: Any, alpha: NonNegative = 1.0, beta: Probability = 0.1) -> Rule:
    r"""Debiased logits of a model that sees the evidence, against K runs that do not.

    .. math::
        out = (1 + \alpha) \log p - \frac{\alpha}{K} \sum_k \log p^{free}_k
        \quad\text{where}\quad p \ge \beta \max p, \quad\text{else } -\infty

    That is classifier-free guidance with scale 1 + alpha inside the plausible set. alpha 0 and beta 0 give p itself.

    Args:
        free: an evidence-free run, logits [B, V], in most uses ``Peer(model, prompt=without_evidence)``.
        more: further ones; their logits are averaged.
        alpha: strength of the debiasing.
        beta: plausibility, a share of the likeliest token's probability.

    Returns:
        a rule on logits [B, V]; not normalised (beams: pass ``renormalize_logits=True``).
    """

    def mix(seen: Tensor, *free: Tensor) -> Tensor:
        seen = log_probs(seen)
        out = weighted((1 + alpha, seen), *((-alpha / len(free), log_probs(f)) for f in free))
        return out.masked_fill(~plausible(seen, beta), -torch.inf)

    return Rule("debias_sampling", mix, free, *more)


@claim(
    debias_sampling,
    "Where logits are evidence plus a prior, decoding against the evidence-free run answers from the evidence; adding "
    "the same run answers from the prior.",
    cost="cpu:2s",
)
def answers_from_the_evidence() -> Evidence:
    """2000 questions, 10 answers: weak evidence for the right one, and a strong prior that is the same for all."""
    g = generator(0, "debias_sampling")
    prior = 2 * torch.randn(10, generator=g)
    right = torch.randint(10, (2000,), generator=g)
    evidence = torch.randn(2000, 10, generator=g)
    evidence[torch.arange(2000), right] += 2.5
    tokens = torch.zeros(2000, 1, dtype=torch.long)

    def accuracy(scores: Tensor) -> float:
        return float((scores.argmax(-1) == right).float().mean())

    def against(other: Tensor) -> float:
        return accuracy(debias_sampling(lambda _: other.expand(2000, 10), beta=0.0)(tokens, evidence + prior))

    measured = {
        "model": accuracy(evidence + prior),
        "debiased": against(prior),
        "prior_free_bayes": accuracy(evidence),
        "added_instead": against(-prior),
    }
    gained = measured["debiased"] - measured["model"]
    return Evidence(holds=gained > 0.1, measured=measured, control=measured["added_instead"] < measured["model"])
