"""DExperts: small experts steer a large model token by token, inside its nucleus."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, Probability, claim, logit_rule
from plumbline.core.errors import refuse
from plumbline.decode.mixing import nucleus, shifted
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator


@logit_rule(
    paper=Paper(
        "DExperts: Decoding-Time Controlled Text Generation with Experts and Anti-Experts",
        "Liu et al.",
        2021,
        arxiv="2105.03023",
    ),
    says="Add an expert's and subtract an anti-expert's logits inside the base model's nucleus.",
    differs=(
        "Sums log-probabilities instead of logits: the same distribution, but for the constant of a row.",
        "A token that an expert gives probability 0 is forbidden, where the formula may have +inf.",
    ),
)
def dexperts(expert: Any = None, antiexpert: Any = None, *, alpha: NonNegative = 2.0, top_p: Probability = 0.9) -> Rule:
    r"""Logits of the ensemble; the model that generates is the base.

    .. math:: out = \log p_{base} + \alpha\,(\log p_{expert} - \log p_{anti}) \quad\text{in the base's nucleus}

    An expert that is left out is replaced by the base itself, so that one of them alone steers too.

    Args:
        expert: a model of the wanted attribute, logits [B, V], or None.
        antiexpert: a model of the unwanted one, logits [B, V], or None.
        alpha: strength (the paper's 2.0 for toxicity, 3.2 for sentiment); 0 leaves the base's nucleus as it is.
        top_p: mass of the base's nucleus, cut before the experts speak; 1 cuts nothing.

    Returns:
        a rule on logits [B, V]; not normalised (beams: pass ``renormalize_logits=True``).

    Raises:
        InputError: neither an expert nor an anti-expert.
    """
    if expert is None and antiexpert is None:
        raise refuse("dexperts", "expert", "a model, or antiexpert one", "neither", "pass dexperts(expert, antiexpert)")

    def mix(base: Tensor, *others: Tensor) -> Tensor:
        given = iter(others)
        for_, against = (base if m is None else next(given) for m in (expert, antiexpert))
        return shifted(base, for_, against, alpha).masked_fill(~nucleus(base, top_p), -torch.inf)

    return Rule("dexperts", mix, *(m for m in (expert, antiexpert) if m is not None))


@claim(
    dexperts,
    "Experts and anti-experts steer away from an attribute; the nucleus of the base model is what keeps fluency.",
    cost="cpu:2s",
)
def steers_within_the_nucleus() -> Evidence:
    """400 contexts, 100 tokens: the last half never fits the context; every second token is of the unwanted kind."""
    g = generator(0, "dexperts")
    base, noise, other = (torch.randn(400, 100, generator=g) for _ in range(3))
    base[:, 50:] -= 6.0
    bad = torch.arange(100) % 2 == 0
    # small models: they know the attribute and have no idea of the context
    expert, anti = 2 * noise - 1.5 * bad, 2 * other + 1.5 * bad
    tokens = torch.zeros(400, 1, dtype=torch.long)

    def measure(scores: Tensor) -> dict[str, float]:
        p = torch.softmax(scores, -1)
        return {"unwanted": float(p[:, bad].sum(-1).mean()), "misfit": float(p[:, 50:].sum(-1).mean())}

    found = {
        "base": measure(base),
        "dexperts": measure(dexperts(lambda _: expert, lambda _: anti)(tokens, base)),
        "without_nucleus": measure(dexperts(lambda _: expert, lambda _: anti, top_p=1.0)(tokens, base)),
        "swapped": measure(dexperts(lambda _: anti, lambda _: expert)(tokens, base)),
    }
    steered = found["dexperts"]["unwanted"] < 0.2 < found["base"]["unwanted"] < found["swapped"]["unwanted"]
    fluent = found["dexperts"]["misfit"] <= found["base"]["misfit"]
    broken = found["without_nucleus"]["misfit"] > 5 * found["dexperts"]["misfit"] + 0.05
    return Evidence(holds=steered and fluent, measured=found, control=broken)
