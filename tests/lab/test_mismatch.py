from __future__ import annotations

import pytest
import torch

from plumbline.lab.mismatch import Tabular, Truncated, enumerated_error, no_weights
from plumbline.lab.tiny import tiny


def test_an_engine_equal_to_the_policy_needs_no_weights():
    assert enumerated_error(no_weights, noise=0.0) < 1e-15


def test_the_on_policy_gradient_is_that_of_the_expected_reward():
    task = Tabular.random(0.5, vocab=3)
    ids = torch.cartesian_prod(*[torch.arange(3)] * 3)

    def expected(logits):
        return float((task.along(logits, ids).sum(-1).exp() * task.reward.ravel()).sum())

    found, at, step = task.on_policy(), 3 + 4, 1e-5  # the logit of token 1 after token 1
    moved = []
    for sign in (1, -1):
        logits = [z.clone() for z in task.policy]
        logits[1][1, 1] += sign * step
        moved.append(expected(logits))
    assert found[at].item() == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-6)


def test_samples_follow_the_engine():
    task = Tabular.random(1.0, vocab=3)
    counts = torch.bincount(task.sample(40_000, 0)[:, 0], minlength=3) / 40_000
    assert torch.allclose(counts.double(), task.engine[0].softmax(-1), atol=0.01)


def test_a_truncated_engine_reports_more_than_the_trainer():
    case = Truncated.of(tiny("llama"), torch.arange(24).reshape(4, 6) + 3, top_k=4)
    assert case.full.mask.sum() == 4 and bool((case.sampler.logps[:, -1] > case.full.logps[:, -1]).all())
