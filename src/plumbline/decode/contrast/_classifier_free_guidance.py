"""Classifier-free guidance of a language model or captioner, and guidance by a second language model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, claim, logit_rule
from plumbline.core.errors import refuse
from plumbline.decode.mixing import weighted
from plumbline.kernels.peer import Rule
from plumbline.kernels.seeds import generator
from plumbline.kernels.vocab import log_probs


@logit_rule(
    paper=Paper(
        "Guiding Image Captioning Models Toward More Specific Captions", "Kornblith et al.", 2023, arxiv="2307.16686"
    ),
    says="Sharpen the next token toward what the condition says and an unconditional run does not.",
    differs=(
        "The paper trains the captioner with its image dropped at times; here the unconditional run is any Peer: the "
        "same model under an empty or negative prompt, or another model.",
        "With a language model its exponents alpha and beta both default to gamma.",
        "A token that the unconditional run gives probability 0 is forbidden; the formula has +inf for gamma > 1.",
    ),
)
def classifier_free_guidance(
    unconditional: Any,
    language_model: Any = None,
    *,
    gamma: NonNegative = 2.0,
    alpha: NonNegative | None = None,
    beta: NonNegative | None = None,
) -> Rule:
    r"""Guided logits; the model that generates is the conditional one, c its condition.

    .. math:: out = \log p(v) + \gamma\,(\log p(v \mid c) - \log p(v))

    gamma 1 is the conditional model, 0 the unconditional one, 2 the paper's. Equal to transformers' ``guidance_scale``,
    with beams, left padding and peers of their own besides. With a language model q:

    .. math:: out = \log q(v) + \alpha \log p(v \mid c) - \beta \log p(v)

    Args:
        unconditional: logits [B, V] without the condition, in most uses ``Peer(model, prompt=negative)``. A prompt
            holds one token at least: bos, or the main prompt's last one as transformers does.
        language_model: q, logits [B, V], with a prompt of its own where it needs one.
        gamma: guidance scale.
        alpha: weight of the conditional model beside q; None: gamma.
        beta: weight of the unconditional one beside q; None: gamma.

    Returns:
        a rule on logits [B, V]; not normalised (beams: pass ``renormalize_logits=True``).

    Raises:
        InputError: alpha or beta without a language model.
    """
    if language_model is None and not (alpha is None and beta is None):
        raise refuse("classifier_free_guidance", "alpha and beta", "left out where there is no language_model",
                     (alpha, beta), "pass gamma")  # fmt: skip
    a, b = (gamma if w is None else w for w in (alpha, beta))

    def mix(conditional: Tensor, unconditional: Tensor, language_model: Tensor | None = None) -> Tensor:
        with_, without = log_probs(conditional), log_probs(unconditional)
        if language_model is None:
            return weighted((gamma, with_), (1 - gamma, without))
        return weighted((1.0, log_probs(language_model)), (a, with_), (-b, without))

    return Rule("classifier_free_guidance", mix, unconditional, *(() if language_model is None else (language_model,)))


@claim(
    classifier_free_guidance,
    "Guidance trades likeness to the reference captions for captions that say more about their image: E log p(image | "
    "caption) rises with the scale while KL from the conditional model grows.",
    cost="cpu:2s",
)
def captions_say_more_about_their_image() -> Evidence:
    """A joint table of 12 images and 40 captions, with the exact conditionals."""
    joint = torch.softmax(2 * torch.randn(12 * 40, generator=generator(0, "cfg"), dtype=torch.float64), 0).view(12, 40)
    given = joint / joint.sum(1, keepdim=True)  # p(caption | image)
    image = (joint / joint.sum(0, keepdim=True)).log()  # log p(image | caption)
    free = joint.sum(0, keepdim=True).expand(12, 40)
    tokens, scales = torch.zeros(12, 1, dtype=torch.long), (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)

    def curves(unconditional: Tensor) -> tuple[list[list[float]], list[float]]:
        told, far = [], []
        for gamma in scales:
            logits = classifier_free_guidance(lambda _: unconditional.log(), gamma=gamma)(tokens, given.log())
            p = torch.softmax(logits, -1)
            told.append((p * image).sum(-1).tolist())
            far.append(float((given * (given.log() - log_probs(logits))).sum(-1).mean()))
        return told, far

    told, far = curves(free)
    rises = all(x < y for one, two in zip(told, told[1:], strict=False) for x, y in zip(one, two, strict=True))
    blind, _ = curves(free.roll(7, 1))  # the marginal of other captions: guidance away from nothing in particular
    fails = any(x > y for one, two in zip(blind, blind[1:], strict=False) for x, y in zip(one, two, strict=True))
    mean = [sum(row) / len(row) for row in told]
    exact = far[scales.index(1.0)] < 1e-12 < min(far[0], far[-1])
    measured = {"scales": scales, "log_p_image": mean, "kl_from_conditional": far}
    return Evidence(holds=rises and exact, measured=measured, control=fails)
