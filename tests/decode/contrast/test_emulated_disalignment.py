"""Emulated disalignment against its closed form, its identities, and what several steps add."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from plumbline.core.errors import InputError
from plumbline.decode import emulated_disalignment
from plumbline.kernels.seeds import generator

TOKENS = torch.zeros(4, 1, dtype=torch.long)
BASE, REWARD, OTHER = torch.randn(3, 4, 20, generator=generator(0), dtype=torch.float64)


def probs(alpha: float, tuned: Tensor, *reference: Tensor, **more: float) -> Tensor:
    peers = [lambda _, z=z: z for z in (tuned, *reference)]
    return torch.softmax(emulated_disalignment(*peers, alpha=alpha, **more)(TOKENS, BASE), -1)


def test_one_step_is_the_optimum_of_the_negated_reward() -> None:
    beta = 0.7
    found = probs(0.4, BASE + REWARD / beta)
    torch.testing.assert_close(found, torch.softmax(BASE - 0.4 * REWARD / beta, -1), rtol=0, atol=1e-12)


def test_identities_in_alpha() -> None:
    tuned = BASE + REWARD
    torch.testing.assert_close(probs(0.0, tuned), torch.softmax(BASE, -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(probs(-1.0, tuned), torch.softmax(tuned, -1), rtol=0, atol=1e-12)
    half = torch.softmax(BASE, -1).sqrt() * torch.softmax(tuned, -1).sqrt()
    torch.testing.assert_close(probs(-0.5, tuned), half / half.sum(-1, keepdim=True), rtol=0, atol=1e-12)


def test_a_reference_of_its_own() -> None:
    found = probs(0.3, OTHER + REWARD, OTHER)
    torch.testing.assert_close(found, torch.softmax(BASE - 0.3 * REWARD, -1), rtol=0, atol=1e-12)
    same = probs(0.3, BASE + REWARD, BASE)
    torch.testing.assert_close(same, probs(0.3, BASE + REWARD), rtol=0, atol=1e-12)


def test_plausibility_drops_the_tail() -> None:
    found = probs(2.0, BASE + REWARD, plausibility=0.2)
    p = torch.softmax(BASE, -1)
    assert torch.equal(found > 0, p >= 0.2 * p.max(-1, keepdim=True).values)


@pytest.mark.parametrize("steps", [1, 2])
def test_several_steps_only_approximate_the_tilt_of_whole_sequences(steps: int) -> None:
    """KL between sampling step by step and the tilt of sequences is 0 for one step and is not for two."""
    base, reward = torch.randn(2, 3, 3, generator=generator(2), dtype=torch.float64)
    tuned = base + reward
    joint, tilt = [], []
    for path in itertools.product(range(3), repeat=steps):
        by_step, whole, last = 1.0, 1.0, 0
        for token in path:
            row = base[last : last + 1]
            rule = emulated_disalignment(lambda _, z=tuned[last : last + 1]: z, alpha=1.0)
            by_step *= float(torch.softmax(rule(TOKENS[:1], row), -1)[0, token])
            whole *= float(torch.softmax(row, -1)[0, token] ** 2 / torch.softmax(tuned[last], -1)[token])
            last = token
        joint.append(by_step)
        tilt.append(whole)
    kl = sum(p * math.log(p * sum(tilt) / q) for p, q in zip(joint, tilt, strict=True))
    assert kl == pytest.approx(0, abs=1e-12) if steps == 1 else kl > 1e-3


def test_a_token_the_tuned_model_forbids_stays_out_and_infinite_alpha_is_refused() -> None:
    tuned = BASE.clone()
    tuned[0, 3] = -math.inf
    assert probs(0.5, tuned)[0, 3] == 0
    with pytest.raises(InputError, match="emulated_disalignment: alpha"):
        emulated_disalignment(lambda _: BASE, alpha=math.inf)
