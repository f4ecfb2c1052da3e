from __future__ import annotations

import torch

from plumbline.kernels.seeds import generator
from plumbline.lab.online import LinearPolicy, before, into_ball, leader, random_losses, trained_policy

LOSSES = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [0.0, 5.0]]])


def test_only_the_past_is_known():
    assert before(LOSSES).tolist() == [[[0.0, 0.0], [1.0, 2.0], [4.0, 1.0]]]
    assert leader(LOSSES, 0.5)[0, 2].tolist() == [-2.0, -0.5]
    policy = LinearPolicy(2)
    changed = LOSSES.clone()
    changed[0, 2] = 100.0
    assert torch.equal(policy(changed), policy(LOSSES))


def test_points_are_brought_into_the_ball_and_left_inside_it():
    assert torch.allclose(into_ball(torch.tensor([[3.0, 4.0], [0.3, 0.4]])), torch.tensor([[0.6, 0.8], [0.3, 0.4]]))


def test_losses_keep_their_sequences_mean():
    still, moving = (random_losses(500, 200, 3, drift, generator(0, "t")).mean(1).std() for drift in (0.0, 1.0))
    assert float(still) < 0.1 and 0.9 < float(moving) < 1.1


def test_a_policy_is_trained_in_place():
    policy = LinearPolicy(2)
    same = trained_policy(policy, lambda played, losses: (played - 3).square().sum((1, 2)), steps=300, length=1, lr=0.1)
    assert same is policy and torch.allclose(policy.matrix()[1], torch.full((2,), 3.0), atol=0.05)
