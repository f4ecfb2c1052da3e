"""Proxy tuning on probabilities worked by hand, and its limits."""

from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode import dexperts, proxy_tuning
from plumbline.kernels.seeds import generator

TOKENS = torch.zeros(3, 1, dtype=torch.long)
LARGE, TUNED, UNTUNED = torch.randn(3, 3, 12, generator=generator(0), dtype=torch.float64)


def test_odds_multiply() -> None:
    """Base odds 1:2, tuned 3:1 where untuned had 1:1: the odds become 3:2, and 9:2 at alpha 2."""
    base, tuned, untuned = (torch.tensor([odds]).double().log() for odds in ([1.0, 2.0], [3.0, 1.0], [1.0, 1.0]))
    for alpha, first in ((1.0, 3 / 5), (2.0, 9 / 11)):
        out = proxy_tuning(lambda _: tuned, lambda _: untuned, alpha=alpha)(TOKENS[:1], base)
        assert torch.softmax(out, -1)[0, 0].item() == pytest.approx(first)


def test_identities() -> None:
    rule = proxy_tuning(lambda _: TUNED, lambda _: UNTUNED, alpha=0.0)
    torch.testing.assert_close(torch.softmax(rule(TOKENS, LARGE), -1), torch.softmax(LARGE, -1), rtol=0, atol=1e-12)
    untouched = proxy_tuning(lambda _: TUNED, lambda _: TUNED, alpha=3.0)(TOKENS, LARGE)
    torch.testing.assert_close(torch.softmax(untouched, -1), torch.softmax(LARGE, -1), rtol=0, atol=1e-12)
    own_base = proxy_tuning(lambda _: TUNED, lambda _: LARGE)(TOKENS, LARGE)
    torch.testing.assert_close(torch.softmax(own_base, -1), torch.softmax(TUNED, -1), rtol=0, atol=1e-12)


def test_is_dexperts_without_its_nucleus() -> None:
    ours = proxy_tuning(lambda _: TUNED, lambda _: UNTUNED, alpha=1.5)(TOKENS, LARGE)
    theirs = dexperts(lambda _: TUNED, lambda _: UNTUNED, alpha=1.5, top_p=1.0)(TOKENS, LARGE)
    assert torch.equal(ours, theirs)


def test_negative_alpha_is_refused() -> None:
    with pytest.raises(InputError, match="proxy_tuning: alpha must be a number >= 0, got -1"):
        proxy_tuning(lambda _: TUNED, lambda _: UNTUNED, alpha=-1.0)
    with pytest.raises(InputError, match="weighted: weights must be finite"):
        proxy_tuning(lambda _: TUNED, lambda _: UNTUNED, alpha=math.inf)(TOKENS, LARGE)
