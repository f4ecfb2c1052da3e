from __future__ import annotations

import torch

from plumbline.kernels.seeds import generator
from plumbline.lab.bandits import (
    draw,
    format_and_answer,
    noisy_arms,
    policy_gradients,
    practised,
    rehearsed,
    scored,
    slope_of,
    three_steps,
)


def test_rollouts_follow_the_policy():
    table = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    ids = draw(table, 20_000, generator(0, "bandits"))
    shares = torch.stack([(ids == k).float().mean(0) for k in range(3)], -1)
    assert ids.shape == (20_000, 2) and torch.allclose(shares, table.softmax(-1), atol=0.02)
    wanted = table.softmax(-1).log()
    assert torch.allclose(scored(table, torch.tensor([[2, 0]])).logps, torch.stack([wanted[0, 2], wanted[1, 0]])[None])


def test_the_policy_gradient_of_one_rollout():
    table = torch.zeros(1, 2)
    found = policy_gradients(table, torch.tensor([[1]]), torch.tensor([2.0]))
    assert found.tolist() == [-1, 1]
    assert slope_of(lambda x: -x.total(), table, torch.tensor([[1]])).tolist() == [[0.5, -0.5]]


def test_practice_finds_the_best_arm_and_is_reproducible():
    def loss(x, rewards, old):
        return -(rewards - rewards.mean()) * x.total()

    first, again = (practised(loss, noisy_arms(4), torch.zeros(1, 4), steps=150, lr=1.0) for _ in range(2))
    assert first.shape == (151, 1, 4) and torch.equal(first, again)
    assert first[-1].softmax(-1)[0, 3] > 0.8


def test_rehearsal_descends_on_fixed_rollouts():
    after = rehearsed(lambda x: -x.total(), torch.zeros(1, 2), torch.tensor([[1], [1]]), steps=50, lr=1.0)
    assert after.softmax(-1)[0, 1] > 0.9


def test_the_format_starts_at_its_stated_probability():
    assert abs(format_and_answer(lambda x, r, old: x.total(), steps=0) - 0.355) < 0.005


def test_three_steps_is_what_it_says():
    ids, values, right = three_steps()
    assert (ids[:, 1].bool() == right).all() and ids[right, 0].sum() == 90 and ids[~right, 0].sum() == 10
    assert ids[right, 2].sum() == 50 and (values[:, 3] == right).all() and (values[:, :2] == 0.5).all()
