from __future__ import annotations

import pytest
import torch

from plumbline.lab.overoptimised import KL_WEIGHT, arms, gold, trained_returns
from plumbline.lab.tilts import tilted


def test_gold_by_hand():
    assert gold(torch.tensor([0.5, 0.8])) == pytest.approx(1.3)
    assert gold(torch.tensor([1.8, 0.0])) == pytest.approx(1.8 - 3.0)


def test_the_proxies_correlate_as_told():
    assert float(torch.corrcoef(arms(0, 20000).T)[0, 1]) == pytest.approx(0.3, abs=0.02)


def test_training_comes_to_the_regularised_optimum():
    rewards = arms(0, 20) * 0.3
    found = trained_returns(rewards, lambda kl, each: kl + 0.5 * each.sum(-1), steps=900, lr=2.0)
    wanted = tilted(0.5 * rewards.sum(-1), 1 / KL_WEIGHT) @ rewards
    assert torch.allclose(found, wanted, atol=0.02)
