from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.short_training import base
from torch import nn

from plumbline.core.errors import InputError
from plumbline.kernels.head import hidden_states
from plumbline.kernels.notes import noted
from plumbline.kernels.seeds import forked, generator
from plumbline.objectives import regret_loss
from plumbline.objectives.pretrain.comparators import ball, simplex
from plumbline.train import fit

LOSSES = torch.tensor([[[1.0, 0.0], [0.0, 3.0]], [[2.0, 1.0], [1.0, 0.0]]])  # totals (1,3) and (3,1)
EVEN = torch.full((2, 2, 2), 0.5)  # pays 2 and 2: regret 1 and 1


def test_by_hand():
    policy = EVEN.clone()
    policy[1, 0] = torch.tensor([1.0, 0.0])  # pays 2.5 in the second: regret 1.5
    weights = torch.tensor([1.0, 1.5]).mul(2).softmax(0)
    with noted() as notes:
        found = regret_loss(policy, LOSSES, sharpness=2.0, outer=torch.square)
    assert torch.allclose(found, 2 * weights * torch.tensor([1.0, 2.25]))
    assert notes == {"regret": [1.25], "worst_regret": [1.5]}


def test_comparators():
    assert simplex(LOSSES).tolist() == [1.0, 1.0]
    assert ball(2.0)(LOSSES).tolist() == pytest.approx([-2 * math.sqrt(10)] * 2)
    for losses in torch.randn(20, 1, 5, 3, generator=generator(0, "comparators")):
        g = generator(1, "points")
        points = nn.functional.normalize(torch.randn(2000, 3, generator=g), dim=-1)
        paid = points @ losses[0].sum(0)
        assert float(ball()(losses)) <= float(paid.min()) < 0.9 * float(ball()(losses))
    with pytest.raises(InputError, match="ball: radius must be a number > 0, got 0"):
        ball(0)


def test_sharpness_zero_is_the_mean_and_a_million_the_worst_without_overflow():
    g = generator(0, "test_regret_loss")
    policy, losses = torch.rand(6, 4, 3, generator=g).softmax(-1), 50 * torch.randn(6, 4, 3, generator=g)
    regret = (policy * losses).sum((1, 2)) - simplex(losses)
    assert torch.allclose(regret_loss(policy, losses, sharpness=0.0), regret)
    assert regret_loss(policy, losses, sharpness=1e6).mean().item() == pytest.approx(regret.max().item())


def test_weights_carry_gradient_unless_told_otherwise():
    policy = EVEN.clone().requires_grad_()
    policy_off = policy + torch.tensor([0.0, 0.1]).view(2, 1, 1) * torch.tensor([1.0, -1.0])

    def slope(**told):
        (found,) = torch.autograd.grad(
            regret_loss(policy_off, LOSSES, sharpness=3.0, **told).mean(), policy, retain_graph=True
        )
        return found

    regret = ((policy_off * LOSSES).sum((1, 2)) - simplex(LOSSES)).detach()
    w = (3 * regret).softmax(0)
    constant = w.view(2, 1, 1) * LOSSES
    assert torch.allclose(slope(detach_weights=True), constant, atol=1e-6)
    moving = w * (1 + 3 * (regret - (w * regret).sum()))  # d/dR_j of sum w R
    assert torch.allclose(slope(), moving.view(2, 1, 1) * LOSSES, atol=1e-6)


def test_what_comes_after_the_end_of_a_sequence_is_free():
    longer = torch.cat([LOSSES, torch.zeros(2, 3, 2)], 1)
    played = torch.cat([EVEN, torch.rand(2, 3, 2)], 1)
    assert torch.equal(regret_loss(played, longer), regret_loss(EVEN, LOSSES))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"regret_loss: policy and losses must be both \[N,T,A\]"):
        regret_loss(EVEN, LOSSES[:, :1])
    with pytest.raises(InputError, match="regret_loss: sharpness must be a number >= 0, got -1"):
        regret_loss(EVEN, LOSSES, sharpness=-1)


class Player(nn.Module):
    """zoo:base reads each step's losses as a token (which action cost least) and plays the next step."""

    def __init__(self, actions):
        super().__init__()
        self.body, self.act = base().model, nn.Linear(160, actions)

    def forward(self, losses):
        best = losses.argmin(-1) + 40
        ids = torch.cat([torch.full_like(best[:, :1], 1), best[:, :-1]], 1)
        return self.act(hidden_states(self.body, ids)).softmax(-1)


def test_short_training_lowers_the_regret_and_other_sequences_losses_do_not():
    def draw(step):
        means = 2 * torch.randn(16, 1, 3, generator=generator(step, "losses"))
        return means + torch.randn(16, 10, 3, generator=generator(step, "noise"))

    def regret(model):
        with torch.no_grad():
            return float(regret_loss(model(draw(1000)), draw(1000), sharpness=0.0).mean())

    def trained(loss):
        with forked(0, "player"):
            player = Player(3)
        before = regret(player.eval())
        rows = [{"input_ids": [1, 2]}]
        told = dict(max_steps=20, learning_rate=1e-3, disable_tqdm=True, logging_steps=1, seed=0)
        done = fit(player, {"x": rows}, loss=lambda s: loss(player(draw(s.step)), draw(s.step)).mean(), **told)
        assert all(math.isfinite(entry["loss"]) for entry in done.history if "loss" in entry)
        return before, regret(player)

    before, after = trained(partial(regret_loss, sharpness=1.0))
    _, untaught = trained(lambda policy, losses: (policy * losses.roll(1, 0)).sum((1, 2)))  # other sequences' losses
    assert after < 0.8 * before and after < 0.8 * untaught
