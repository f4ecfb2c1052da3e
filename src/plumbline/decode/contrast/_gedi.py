"""GeDi: a small class-conditional language model classifies every candidate token and guides a large model."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from plumbline.core.declare import Bound, Evidence, NonNegative, Paper, Positive, Probability, claim, logit_rule
from plumbline.decode.contrast.class_posterior import ClassPosterior
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator

Token = Annotated[int, Bound(ge=0)]


@logit_rule(
    paper=Paper("GeDi: Generative Discriminator Guided Sequence Generation", "Krause et al.", 2020, arxiv="2009.06367"),
    says="Guide a model by a small class-conditional model that classifies each token that may come next.",
    differs=(
        "T counts a row's own tokens; the official code counts the padded width.",
        "The official bias per class and class_bias are one number here: only their difference acts.",
        "The official script's repetition penalty (1.2, on logits shifted to a maximum of 10) is left to transformers:"
        " pass repetition_penalty, which acts before this rule.",
        "A token that both classes give probability 0 counts as no evidence.",
        "Removed tokens are -inf (official: -10000), and the most desired one is never removed (official: a message).",
        "The training loss of the discriminator is not part of this rule.",
    ),
)
def gedi(
    discriminator: Any,
    *,
    desired: Token,
    undesired: Token,
    omega: NonNegative = 30.0,
    rho: Probability = 0.8,
    tau: Probability = 0.8,
    scale: Positive = 1.0,
    bias: float = 0.0,
    per_token: bool = True,
    topic: Tensor | None = None,
) -> Rule:
    r"""Posterior-weighted decoding with a filter.

    With :math:`S_c` the log-probability of the row's T tokens under class c and :math:`\log P^+` the log-softmax of
    :math:`a` over the two classes:

    .. math::

        a_c(v) = scale\,\frac{S_c + \log p(v \mid c, x)}{T + 1} + bias_c, \qquad out_v = \ell_v + \omega \log P^+(v)

    Tokens are then ordered by :math:`P^+`, least desired first; v is removed if the mass of softmax(out) up to and
    with v is below rho and :math:`P^+(v) < tau`.

    Args:
        discriminator: a causal LM trained on texts that begin with their class's code; logits [2B, V] a step. With
            ``Peer(model, prompt=...)`` it classifies that prompt and what is generated.
        desired, undesired: ids of the control codes, put directly before a row's first token.
        omega: strength. 0 and rho 0 together leave the logits as they are.
        rho, tau: the filter; rho 0 removes nothing.
        scale, bias: the discriminator's learned scale and its bias for the desired class.
        per_token: the mean over tokens, as in the paper; False: the exact posterior given the whole text.
        topic: [K] ids of a secondary code, such as a topic's word, after either code.

    Returns:
        A rule ``(tokens [B, T], logits [B, V]) -> [B, V]``.
    """
    posterior = ClassPosterior(discriminator, (desired, undesired), topic, scale=scale, bias=bias, per_token=per_token)

    def guide(logits: Tensor, desire: Tensor) -> Tensor:
        out = (logits + omega * desire.clamp_min(-1e6)).masked_fill(desire == -torch.inf, -torch.inf)
        if rho == 0:
            return out
        ranked, order = desire.sort(dim=-1, stable=True)
        mass = torch.softmax(out, -1).gather(-1, order).cumsum(-1)
        remove = (mass < rho) & (ranked < math.log(tau) if tau > 0 else torch.zeros_like(mass, dtype=torch.bool))
        alive = out.gather(-1, order) > -torch.inf
        last = alive.shape[-1] - 1 - alive.flip(-1).long().argmax(-1, keepdim=True)
        remove.scatter_(-1, last, False)  # the most desired token that is allowed at all
        return out.masked_fill(torch.zeros_like(remove).scatter_(-1, order, remove), -torch.inf)

    return Rule("gedi", guide, posterior)


def _example(discriminator: Any) -> dict[str, Any]:
    """Codes for the shipped checks."""
    return {"desired": 3, "undesired": 4}


@claim(
    gedi,
    "The share of the desired topic's tokens rises with omega; codes the wrong way round lower it.",
    cost="cpu:5s",
)
def topic_share_rises_with_omega() -> Evidence:
    draw = generator(0, "gedi")
    vocab, rows, length = 22, 64, 24  # tokens 0-9 are topic one's, 10-19 topic two's; 20 and 21 are the codes
    neutral = torch.randn(vocab, vocab, generator=draw)
    neutral[:, 20:] = -torch.inf
    lean = torch.zeros(vocab)
    lean[:10], lean[10:20] = 1.0, -1.0

    def classes(ids: Tensor) -> Tensor:
        sign = torch.where((ids == 20).any(1), 1.0, -1.0)[:, None]
        return neutral[ids[:, -1]].where(ids[:, -1:] < 20, torch.zeros(vocab)) + sign * lean

    def share(omega: float, codes: tuple[int, int] = (20, 21)) -> float:
        rule = gedi(classes, desired=codes[0], undesired=codes[1], omega=omega, rho=0.0)
        ids = torch.randint(0, 20, (rows, 1), generator=generator(1, "gedi"))
        draws = generator(2, "gedi")
        for _ in range(length):
            scores = rule(ids, neutral[ids[:, -1]])
            ids = torch.cat([ids, torch.multinomial(torch.softmax(scores, -1), 1, generator=draws)], 1)
        return float((ids[:, 1:] < 10).float().mean())

    shares = {omega: share(omega) for omega in (0.0, 1.0, 5.0, 30.0)}
    wrong = share(5.0, (21, 20))
    rising = list(shares.values())
    return Evidence(
        holds=rising == sorted(rising) and rising[-1] > rising[0] + 0.2,
        measured={"share_by_omega": {str(k): v for k, v in shares.items()}, "codes_exchanged": wrong},
        control=wrong < rising[0],
    )
