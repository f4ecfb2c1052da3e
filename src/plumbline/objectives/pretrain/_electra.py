"""ELECTRA: a discriminator learns from every token which of them a small generator has replaced."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.core.declare import Evidence, NonNegative, Paper, claim, objective
from plumbline.core.errors import refuse
from plumbline.core.scored import IGNORED, Scored
from plumbline.kernels.notes import note
from plumbline.kernels.seeds import generator as stream


@objective(
    paper=Paper(
        "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators",
        "Clark et al.",
        2020,
        arxiv="2003.10555",
    ),
    says="Train a small generator to fill masks, and a discriminator to tell at every token whether it was replaced.",
    differs=(
        "Both terms are means over a row, then over rows; the official code pools the tokens of a batch, where a short "
        "row weighs less.",
        "Masking, sampling and the two models are objectives.pretrain.replaced_tokens.ReplacedTokens.",
    ),
)
def electra(
    generator: Scored, detected: Tensor, replaced: Tensor, *, generator_weight: NonNegative = 1.0,
    detector_weight: NonNegative = 50.0,
) -> Tensor:  # fmt: skip
    r"""Per-row loss of both models; the discriminator reads samples, so no gradient passes between them.

    .. math:: \ell = -\frac{w_g}{|M|} \sum_{t \in M} \log p_G(x_t)
              + \frac{w_d}{T} \sum_t \mathrm{BCE}\bigl(\sigma(D_t),\, 1[t \in M,\ \hat x_t \neq x_t]\bigr)

    Args:
        generator: the generator at the masked positions M, which its mask marks; logps [B,T] of the original tokens.
        detected: [B,T], the discriminator's logits that a token was replaced.
        replaced: [B,T], 1 where it was, 0 where it is the original (a sample that hits it included), -100 no token.
        generator_weight, detector_weight: w_g and w_d; 1 and 50 in the official configuration.

    Returns:
        [B] nats. Noted: the share of masked tokens that were replaced, and of replaced and of original tokens the share
        that the discriminator gets right at probability 1/2 (caught, passed).

    Raises:
        InputError: the three do not share a shape [B,T].
    """
    if not detected.shape == replaced.shape == generator.logps.shape:
        shapes = [tuple(x.shape) for x in (generator.logps, detected, replaced)]
        raise refuse("electra", "generator, detected, replaced", "of one shape [B,T]", shapes, "see ReplacedTokens")
    counted = replaced != IGNORED
    logits = detected.to(torch.promote_types(detected.dtype, torch.float32))
    fake = counted & (replaced > 0)
    errors = F.binary_cross_entropy_with_logits(logits, fake.to(logits.dtype), reduction="none")
    detection = torch.where(counted, errors, 0.0).sum(-1) / counted.sum(-1).clamp(min=1)
    masked, real = generator.mask.sum().clamp(min=1), counted & ~fake
    note(
        replaced=fake.sum() / masked,
        caught=(fake & (logits > 0)).sum() / fake.sum().clamp(min=1),
        passed=(real & (logits <= 0)).sum() / real.sum().clamp(min=1),
    )
    return -generator_weight * generator.mean() + detector_weight * detection


def _example(mask: Tensor) -> dict[str, Tensor]:
    g = stream(0, "electra example")
    replaced = torch.randint(2, mask.shape, generator=g)
    return {"detected": torch.randn(mask.shape, generator=g), "replaced": replaced.masked_fill(~mask, IGNORED)}


@claim(
    electra,
    "Its best discriminator gives a token v the odds m q(v)(1 - p(v)) : p(v)(1 - m + m q(v)) of being a replacement, "
    "for a generator q of a source p: a sample that hits the original counts as real.",
    cost="cpu:3s",
)
def best_discriminator() -> Evidence:
    g, m = stream(0, "electra"), 0.15
    p, q = torch.randn(2, 12, generator=g, dtype=torch.float64).mul(1.5).softmax(-1).unbind()
    fake, hit, kept = m * q * (1 - p), m * q * p, (1 - m) * p  # shares of all tokens, by the token that is seen
    wanted = fake / (fake + hit + kept)

    def fitted(shares: Tensor, labels: Tensor, loss: Callable[..., Tensor]) -> float:
        """Largest error of a table of logits [V] fitted to events with one token each."""
        table = torch.zeros(12, dtype=torch.float64, requires_grad=True)
        none = Scored(torch.zeros(len(labels), 1), torch.zeros(len(labels), 1, dtype=torch.bool))
        newton = torch.optim.LBFGS([table], lr=0.5, max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            newton.zero_grad()
            total = (shares * loss(none, table.repeat(len(labels) // 12)[:, None], labels[:, None])).sum()
            total.backward()
            return total

        newton.step(closure)
        return float((table.detach().sigmoid() - wanted).abs().max())

    shares, real, replaced = torch.cat([fake, hit, kept]), torch.zeros(12).long(), torch.ones(12).long()
    off = fitted(shares, torch.cat([replaced, real, real]), electra)
    other = fitted(shares, torch.cat([replaced, replaced, real]), electra)  # every resampled token called a fake
    return Evidence(off < 0.01, {"largest error": off, "when hits are called fakes": other}, control=other > 0.02)
