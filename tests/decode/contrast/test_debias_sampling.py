"""Debias sampling is guidance inside the plausible set; several evidence-free runs are averaged."""

from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode import classifier_free_guidance, debias_sampling
from plumbline.kernels.seeds import generator

TOKENS = torch.zeros(3, 1, dtype=torch.long)
SIGHTED, NONE, UNK = 2 * torch.randn(3, 3, 12, generator=generator(0), dtype=torch.float64)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_is_guidance_with_scale_one_plus_alpha_and_a_mask(alpha: float) -> None:
    found = debias_sampling(lambda _: NONE, alpha=alpha, beta=0.1)(TOKENS, SIGHTED)
    guided = classifier_free_guidance(lambda _: NONE, gamma=1 + alpha)(TOKENS, SIGHTED)
    bound = SIGHTED.max(-1, keepdim=True).values + math.log(0.1)
    out = bound > SIGHTED
    torch.testing.assert_close(found, guided.masked_fill(out, -math.inf), rtol=0, atol=1e-12)
    assert out.any() and not out.all()


def test_two_runs_are_averaged_in_logit_space() -> None:
    found = torch.softmax(debias_sampling(lambda _: NONE, lambda _: UNK, beta=0.0)(TOKENS, SIGHTED), -1)
    wanted = torch.softmax(2 * SIGHTED - (NONE + UNK) / 2, -1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_alpha_zero_leaves_the_model() -> None:
    plain = debias_sampling(lambda _: NONE, alpha=0.0, beta=0.0)(TOKENS, SIGHTED)
    torch.testing.assert_close(torch.softmax(plain, -1), torch.softmax(SIGHTED, -1), rtol=0, atol=1e-12)
    masked = debias_sampling(lambda _: NONE, alpha=0.0, beta=0.3)(TOKENS, SIGHTED)
    assert torch.equal(masked > -math.inf, SIGHTED - SIGHTED.max(-1, keepdim=True).values >= math.log(0.3))


def test_negative_alpha_is_refused() -> None:
    with pytest.raises(InputError, match="debias_sampling: alpha must be a number >= 0"):
        debias_sampling(lambda _: NONE, alpha=-0.1)
