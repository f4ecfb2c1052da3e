"""Contrastive decoding: prefer what a strong model knows and a weak one does not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, Positive, Probability, claim, logit_rule
from plumbline.decode.mixing import plausible, weighted
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator
from plumbline.kernels.vocab import log_probs


@logit_rule(
    paper=Paper(
        "Contrastive Decoding: Open-ended Text Generation as Optimization", "Li et al.", 2022, arxiv="2210.15097"
    ),
    says="Score each plausible token by the expert's log-probability minus an amateur's.",
    differs=(
        "beta selects the later form of O'Brien and Lewis (2023, arXiv 2309.09117), (1 + beta) expert - beta amateur "
        "with their beta 0.5; None is the original.",
        "The official code can let the amateur ignore the prompt; here that is Peer(amateur, prompt=last_token).",
        "amateur_temperature is 1 (the paper's for OPT; it takes 0.5 for GPT-2).",
        "A token that the amateur gives probability 0 is forbidden, where the formula has +inf.",
    ),
)
def contrastive_decoding(
    amateur: Any, *, alpha: Probability = 0.1, amateur_temperature: Positive = 1.0, beta: NonNegative | None = None
) -> Rule:
    r"""Contrastive scores inside the expert's plausible set; the model that generates is the expert.

    .. math::
        out_v = \log p_{expert}(v) - \log p_{amateur}(v)
        \quad\text{if}\quad p_{expert}(v) \ge \alpha \max_u p_{expert}(u), \quad\text{else } -\infty

    With ``beta``: :math:`(1 + \beta)\log p_{expert} - \beta\log p_{amateur}`, which tends to the expert's own logits as
    beta tends to 0 (alpha 0 and beta 0 give its distribution) and to the original's ranking as beta grows.

    Args:
        amateur: a weaker model with the same vocabulary, logits [B, V].
        alpha: plausibility, a share of the expert's likeliest token's probability; 0 admits every token.
        amateur_temperature: divides the amateur's logits; below 1 penalises what it is sure of more.
        beta: None, or the weight of the amateur in the later form.

    Returns:
        a rule on logits [B, V]; not normalised: beam search sums it over the sequence, as the paper does.
    """
    weights = (1.0, -1.0) if beta is None else (1.0 + beta, -beta)

    def mix(expert: Tensor, amateur: Tensor) -> Tensor:
        own, other = log_probs(expert), log_probs(amateur / amateur_temperature)
        return weighted((weights[0], own), (weights[1], other)).masked_fill(~plausible(own, alpha), -torch.inf)

    return Rule("contrastive_decoding", mix, amateur)


@claim(
    contrastive_decoding,
    "Two models share a habit that only the larger outgrows in part: subtracting the amateur brings out what only the "
    "expert knows, and the plausibility bound is what keeps the tail out.",
    cost="cpu:2s",
)
def finds_what_only_the_expert_knows() -> Evidence:
    """300 contexts: a habit both models share (id 0), the expert's knowledge (id 1), and a tail that neither knows."""
    g = generator(0, "contrastive_decoding")
    shared, known = torch.zeros(300, 400), torch.zeros(300, 400)
    shared[:, 0], shared[:, 20:], known[:, 1] = 5.0, -10.0, 4.0
    noise = torch.ones(400)
    noise[20:] = 2.0
    expert, amateur = (shared + noise * torch.randn(300, 400, generator=g) for _ in range(2))
    expert = expert + known
    tokens = torch.zeros(300, 1, dtype=torch.long)

    def right(scores: Tensor) -> float:
        return float((scores.argmax(-1) == 1).float().mean())

    def contrast(alpha: float) -> float:
        return right(contrastive_decoding(lambda _: amateur, alpha=alpha)(tokens, expert))

    measured = {"expert": right(expert), "contrast": contrast(0.1), "contrast_without_plausibility": contrast(0.0)}
    gained = measured["contrast"] - measured["expert"]
    lost = measured["contrast"] - measured["contrast_without_plausibility"]
    return Evidence(holds=gained > 0.3, measured=measured, control=lost > 0.3)
