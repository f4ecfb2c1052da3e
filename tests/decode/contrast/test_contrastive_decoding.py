"""Contrastive decoding by a slow loop, both published forms, and its limits."""

from __future__ import annotations

import math

import pytest
import torch

from plumbline.core.errors import InputError
from plumbline.decode import contrastive_decoding
from plumbline.kernels.seeds import generator

TOKENS = torch.zeros(3, 1, dtype=torch.long)
EXPERT, AMATEUR = 2 * torch.randn(2, 3, 15, generator=generator(0), dtype=torch.float64)


@pytest.mark.parametrize(("alpha", "temperature", "beta"), [(0.1, 1.0, None), (0.3, 0.5, None), (0.1, 1.0, 0.5)])
def test_scores_are_the_equation(alpha: float, temperature: float, beta: float | None) -> None:
    rule = contrastive_decoding(lambda _: AMATEUR, alpha=alpha, amateur_temperature=temperature, beta=beta)
    found = rule(TOKENS, EXPERT).tolist()
    for e, a, scores in zip(EXPERT.tolist(), AMATEUR.tolist(), found, strict=True):
        ze, za = (sum(map(math.exp, x)) for x in (e, [x / temperature for x in a]))
        p = [math.exp(x) / ze for x in e]
        q = [math.exp(x / temperature) / za for x in a]
        for v in range(15):
            if p[v] < alpha * max(p):
                assert scores[v] == -math.inf
            elif beta is None:
                assert scores[v] == pytest.approx(math.log(p[v] / q[v]))
            else:
                assert scores[v] == pytest.approx((1 + beta) * math.log(p[v]) - beta * math.log(q[v]))


def test_beta_zero_and_alpha_zero_give_the_expert() -> None:
    found = contrastive_decoding(lambda _: AMATEUR, alpha=0.0, beta=0.0)(TOKENS, EXPERT)
    torch.testing.assert_close(torch.softmax(found, -1), torch.softmax(EXPERT, -1), rtol=0, atol=1e-12)


def test_large_beta_ranks_as_the_original_and_alpha_one_is_greedy() -> None:
    original = contrastive_decoding(lambda _: AMATEUR)(TOKENS, EXPERT)
    later = contrastive_decoding(lambda _: AMATEUR, beta=1e6)(TOKENS, EXPERT)
    assert torch.equal(original.argsort(stable=True), later.argsort(stable=True))
    only = contrastive_decoding(lambda _: AMATEUR, alpha=1.0)(TOKENS, EXPERT)
    assert torch.equal(only.argmax(-1), EXPERT.argmax(-1)) and (only > -math.inf).sum() == 3


def test_negative_beta_and_zero_temperature_are_refused() -> None:
    with pytest.raises(InputError, match="contrastive_decoding: beta"):
        contrastive_decoding(lambda _: AMATEUR, beta=-0.5)
    with pytest.raises(InputError, match="contrastive_decoding: amateur_temperature"):
        contrastive_decoding(lambda _: AMATEUR, amateur_temperature=0.0)
